/* A classifier on any number of ranks, also more ranks than examples, against one rank alone: losses, logits, updated
 * weights. A batch of texts of different lengths against each text by itself. What alpha 0 freezes. With an argument:
 * writes step files into that folder instead, for test_parity. */
#include <math.h>
#include <mpi.h>
#include <string.h>

#include "base/log.h"
#include "tests/mpi/expect.h"
#include "train/classify.h"
#include "train/optimizer.h"
#include "train/step_file.h"

enum { V = 11, C = 3, ROWS = 7, LONGEST = 12, STEPS = 3 };
/* Adam makes a whole step of the rounding of a gradient that is nearly 0. */
static const double tolerance = sizeof(real) == sizeof(double) ? 1e-10 : 2e-4,
                    updated_tolerance = sizeof(real) == sizeof(double) ? 1e-10 : 1e-2;

static const char *const base[] = {
    "model.kind=classifier", "model.layers=2",      "model.d_model=12",
    "model.heads=2",         "model.d_head=6",      "model.d_inner=10",
    "model.dropout=0.1",     "moe.experts=7",       "model.attention_dropout=0.1",
    "router.top_k=2",        "quantizer.alpha=0.2", "optim.lr=0.003",
    "classifier.length=12",  "train.batch=7",       "train.steps=12",
    "train.accumulate=2",    "router.balance=0.1",
};
enum { BASE = sizeof base / sizeof *base, MORE = 5 };

struct classifier {
    struct config config;
    struct model model;
    struct step step;
};

/* Weights large enough that nothing is nearly linear. */
static void start(struct classifier *c, const char *const *more, int n, struct comm *comm) {
    const char *settings[BASE + MORE];
    memcpy(settings, base, sizeof base);
    memcpy(settings + BASE, more, (size_t)n * sizeof *more);
    if (config_load(&c->config, NULL, 0, settings, BASE + n) || model_init(&c->model, &c->config, V, C, comm, true))
        FATAL("%s", status_message());
    step_init(&c->step, &c->model);
    model_start(&c->model);
    for (int i = 0; i < c->model.params.count; ++i) {
        struct param *p = c->model.params.list[i];
        if (!strstr(p->name, "norm")) ops->add_scaled(p->data, p->data, 14, p->size);
    }
}

static void end(struct classifier *c) {
    step_free(&c->step);
    model_free(&c->model);
}

static const double weights[C] = {0.5, 2, 1.25};
static int32_t lengths[ROWS], labels[ROWS], tokens[ROWS * LONGEST];

static struct batch some_batch(int64_t rows, int64_t step) {
    int64_t n = 0;
    for (int64_t b = 0; b < rows; ++b) {
        lengths[b] = b % 3 == 1 ? 1 : (int32_t)number(b, step, 0, LONGEST) + 1;
        labels[b] = (int32_t)number(b, step, 1, C);
        for (int64_t t = 0; t < lengths[b]; ++t) tokens[n++] = (int32_t)number(b, step, 2 + t, V);
    }
    return (struct batch){rows, lengths, tokens, labels, weights};
}

static void expect_near(const char *what, const real *found, const real *expected, int64_t n, double most) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; ++i) {
        difference += pow((double)found[i] - (double)expected[i], 2);
        norm += pow((double)expected[i], 2);
    }
    if (sqrt(difference) <= most * sqrt(norm)) return;
    fprintf(stderr, "%s: %s: relative error %.2g\n", part, what, sqrt(difference / norm));
    failures++;
}

/* The part of a parameter that both hold: all of it where it is replicated. */
static void compare_parameters(const struct classifier *here, const struct classifier *alone) {
    for (int i = 0; i < here->model.params.count; ++i) {
        const struct param *p = here->model.params.list[i], *q = alone->model.params.list[i];
        const real *expected = q->data + (p->count ? p->first * (p->size / p->count) : 0);
        expect_near(p->name, p->data, expected, p->size, updated_tolerance);
    }
}

static double update(struct classifier *c, const struct batch *batch, int64_t step) {
    step_queue_batch(&c->step, step, NULL, batch);
    step_collect(&c->step);
    optimizer_update(&c->model, step);
    model_after_step(&c->model, step);
    return c->step.stats.loss;
}

/* The losses are those of the logits: without dropout, the very ones that `classify` finds. */
static void expect_task_of_logits(const struct classifier *c, const struct batch *batch) {
    double sum = 0, all = 0;
    for (int64_t b = 0; b < batch->rows; ++b) {
        double weight = weights[batch->labels[b]];
        sum += weight * classify_loss(c->step.class_logits + b * C, C, batch->labels[b]);
        all += weight;
    }
    EXPECT(fabs(sum / all - c->step.stats.task) < 1e-5);
}

static void test_ranks(const char *const *more, int n, struct comm *world) {
    static const int64_t rows[STEPS] = {ROWS, 2, 1};
    struct comm *self = comm_self_new();
    struct classifier here, alone;
    struct pass_memory memory = {0};
    real found[ROWS * C], expected[ROWS * C];
    start(&here, more, n, world);
    start(&alone, more, n, self);
    for (int64_t s = 0; s < STEPS; ++s) {
        struct batch batch = some_batch(rows[s], s);
        double most = s ? updated_tolerance : tolerance;
        classify(found, &here.model, &batch, s, &memory);
        classify(expected, &alone.model, &batch, s, &memory);
        expect_near("classify", found, expected, rows[s] * C, most);
        double loss = update(&here, &batch, s), loss_alone = update(&alone, &batch, s);
        EXPECT(fabs(loss - loss_alone) <= most * loss_alone);
        expect_near("logits", here.step.class_logits, alone.step.class_logits, rows[s] * C, most);
        expect_task_of_logits(&here, &batch);
        EXPECT(!memcmp(here.step.stats.hashes, alone.step.stats.hashes, 2 * sizeof *here.step.stats.hashes));
    }
    compare_parameters(&here, &alone);
    pass_memory_free(&memory);
    end(&here);
    end(&alone);
    comm_free(self);
}

static void test_padding(const char *const *more, int n, struct comm *world) {
    struct classifier c;
    struct pass_memory memory = {0};
    real together[ROWS * C], alone[C];
    start(&c, more, n, world);
    struct batch batch = some_batch(ROWS, 5);
    classify(together, &c.model, &batch, 0, &memory);
    for (int64_t b = 0, at = 0; b < ROWS; at += lengths[b++]) {
        struct batch one = {.rows = 1, .lengths = lengths + b, .tokens = tokens + at};
        classify(alone, &c.model, &one, 0, &memory);
        for (int64_t k = 0; k < C; ++k)
            EXPECT(fabs((double)(together[b * C + k] - alone[k])) <= (sizeof(real) == 8 ? 1e-12 : 1e-4));
        EXPECT(classify_choice(together + b * C, C) == classify_choice(alone, C));
    }
    pass_memory_free(&memory);
    end(&c);
}

/* The codes' table of every kind: the same bits after some steps, or not, as alpha says. */
static void test_alpha(const char *kind, const char *alpha, struct comm *world) {
    char setting[64];
    snprintf(setting, sizeof setting, "quantizer.kind=%s", kind);
    const char *more[] = {"moe.mode=discrete", setting, alpha};
    struct classifier c;
    start(&c, more, 3, world);
    const struct param *table = c.model.blocks[1].moe.quantizer.table;
    const struct params *params = &c.model.params;
    if (!table) /* frozen_linear makes its codes from these */
        for (int i = 0; i < params->count; ++i)
            if (!strcmp(params->list[i]->name, "layer.1.quantizer.weight")) table = params->list[i];
    size_t bytes = (size_t)table->size * sizeof(real);
    real *before = memcpy(take(bytes), table->data, bytes), head = c.model.head.bias->data[0];
    for (int64_t s = 0; s < STEPS; ++s) {
        struct batch batch = some_batch(ROWS, s);
        update(&c, &batch, s);
    }
    bool still = !memcmp(before, table->data, bytes);
    EXPECT(still == !strcmp(alpha, "quantizer.alpha=0"));
    EXPECT(c.model.head.bias->data[0] != head);
    free(before);
    end(&c);
}

static void write_file(const char *folder, int64_t i, const char *const *more, int n, struct comm *world) {
    char path[1024];
    struct classifier c;
    struct batch batch = some_batch(ROWS - i, i);
    snprintf(path, sizeof path, "%s/%lld.h5", folder, (long long)i);
    start(&c, more, n, world);
    EXPECT(!step_file_write_batch(path, &c.step, i, &batch));
    end(&c);
}

static void test_all(const char *folder, struct comm *world) {
    static const char *const cases[][MORE] = {
        {"moe.mode=discrete"},
        {"moe.mode=discrete", "model.attention=absolute", "model.norm=pre", "classifier.head=linear"},
        {"moe.mode=discrete", "quantizer.kind=online_clustered", "quantizer.straight_through=blend"},
        {"moe.mode=joint", "model.norm=pre", "router.capacity=1"},
        {"moe.mode=continuous", "model.attention=absolute", "router.kind=smoe"},
        {"moe.mode=continuous", "router.kind=dense", "router.top_k=1", "classifier.head=linear"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        int n = 0;
        while (n < MORE && cases[i][n]) ++n;
        part = cases[i][n - 1];
        if (folder) {
            write_file(folder, (int64_t)i, cases[i], n, world);
            continue;
        }
        test_ranks(cases[i], n, world);
        if (i != 3) test_padding(cases[i], n, world); /* room in an expert depends on the other texts */
    }
    static const char *const kinds[] = {"vq", "cosine", "factorized", "ema", "frozen_linear", "online_clustered"};
    for (size_t i = 0; !folder && i < sizeof kinds / sizeof *kinds; ++i) {
        part = kinds[i];
        test_alpha(kinds[i], "quantizer.alpha=0", world);
        test_alpha(kinds[i], "quantizer.alpha=0.2", world);
    }
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    struct comm *world = comm_mpi_new();
    world_rank = world->rank;
    log_init(world->rank);
    ops_init_cpu(1, PRECISION_FP32);
    comm_limit(60);
    test_all(argc > 1 ? argv[1] : NULL, world);
    comm_free(world);
    MPI_Finalize();
    return failures > 0;
}
