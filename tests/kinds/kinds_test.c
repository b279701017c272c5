/* Every router and every quantizer of the lists, with no list of their names here: a new one is tested by being there.
 * For each:
 * - 12 steps of training on this number of ranks have the losses and end in the state of one process alone, whose
 *   routes are replayed; dropout is on, 7 rows and 7 experts divide by nothing, and the stages of a schedule (the
 * second router, the growth of k, the fit of k-means) fall inside;
 * - replicated parameters and state have the same bits on all ranks after every step;
 * - written after step 6 and resumed, the run ends in the same bits; on one process alone it has the same losses;
 * - a checkpoint without one of the state's arrays is refused;
 * - in double, on one process: gradients against differences of the loss. Routers are held alone, in mode `continuous`,
 *   where the gradient is the true one. A quantizer's is not (straight-through): there L_vq's own gradient is compared,
 *   by every parameter, and the task's by those behind the codes.
 *
 * Usage: test_kinds [self | astray]; self: one process, without MPI; astray: the state of one rank is spoilt, which a
 * build with assertions must notice. */
#include <math.h>
#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "toy.h"
#include "train/checkpoint.h"
#include "train/optimizer.h"

enum { STOP = 6 };

static const bool is_double = sizeof(real) == sizeof(double);
static const double tolerance = sizeof(real) == sizeof(double) ? 1e-10 : 1e-5;
static const double tolerance_state = sizeof(real) == sizeof(double) ? 1e-9 : 1e-4;
static const double tolerance_gradient = 1e-6;

static int failures;
static struct comm *world;
static char path[64], path_cut[64];

static void fail(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail(const char *name, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "FAILED on rank %d of %d: %s: ", world->rank, world->size, name);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    ++failures;
}

/* ---- What is compared ---- */

static double relative(double a, double b) { return fabs(a - b) / fmax(fabs(b), 1e-30); }

static double largest(double value) {
    comm_allreduce(world, &value, 1, COMM_DOUBLE, COMM_MAX);
    return value;
}

/* Relative L2 of the worst array of state. */
static double state_error(const struct model *model, const struct model *expected) {
    double worst = 0;
    for (int i = 0; i < model->params.count; ++i) {
        const struct param *p = model->params.list[i], *q = expected->params.list[i];
        double difference = 0, norm = 0;
        if (p->placement != PLACE_STATE) continue;
        for (int64_t j = 0; j < p->size; ++j) {
            difference += pow((double)p->data[j] - (double)q->data[j], 2);
            norm += pow((double)q->data[j], 2);
        }
        worst = fmax(worst, sqrt(difference / fmax(norm, 1e-30)));
    }
    return worst;
}

static void expect_same_on_all_ranks(const char *name, const struct model *model, int64_t number) {
    int64_t least = (int64_t)params_hash(&model->params), most = least;
    comm_allreduce(world, &least, 1, COMM_INT64, COMM_MIN);
    comm_allreduce(world, &most, 1, COMM_INT64, COMM_MAX);
    if (least != most) fail(name, "step %lld: parameters or state differ between ranks", (long long)number);
}

static bool same_bits(const real *a, const real *b, int64_t n) { return !memcmp(a, b, (size_t)n * sizeof *a); }

static void expect_same_model(const char *name, const struct toy *a, const struct toy *b) {
    const struct params *p = &a->model.params, *q = &b->model.params;
    const struct memory *m = &a->step.memory, *n = &b->step.memory;
    for (int i = 0; i < p->count; ++i)
        if (!same_bits(p->list[i]->data, q->list[i]->data, p->list[i]->size))
            fail(name, "resumed: other bits in %s", p->list[i]->name);
    if (!same_bits(p->m, q->m, p->trained) || !same_bits(p->v, q->v, p->trained))
        fail(name, "resumed: other bits in the moments");
    if (m->length != n->length || !same_bits(m->data, n->data, m->layers * m->rows * m->capacity * m->d_model))
        fail(name, "resumed: other bits in the memory");
}

/* ---- Checkpoints ---- */

static struct text text_of_symbols(void) {
    struct text text = {.vocabulary = {.size = V, .bytes = true}, .splits[SPLIT_TRAIN].path = "symbols"};
    for (int i = 0; i < V; ++i) text.vocabulary.byte_of[i] = (uint8_t)('a' + i);
    return text;
}

static void must(enum status status) {
    if (status) FATAL("%s", status_message());
}

/* A fresh model that goes on from the file, which was written after step STOP. */
static void resume(struct toy *toy, const struct variant *variant, struct comm *comm) {
    struct text text = text_of_symbols();
    struct progress progress = {0};
    must(toy_init(toy, variant, comm));
    must(checkpoint_resume(path, &toy->step, &(struct diagnostics){0}, &(struct legend){.vocabulary = &text.vocabulary},
                           &progress));
    if (progress.step != STOP) fail(variant->name, "resumed at step %lld", (long long)progress.step);
}

/* All of it but one array; by one process. */
static void copy_without(const char *left_out) {
    struct archive *from;
    struct snapshot *to = snapshot_new(NULL);
    must(archive_open(&from, path, NULL));
    const struct h5_contents *contents = archive_contents(from);
    for (int i = 0; i < contents->n_attributes; ++i) {
        const struct h5_attribute *a = &contents->attributes[i];
        if (a->kind == H5_INTEGER) snapshot_put_int(to, a->name, a->integer);
        if (a->kind == H5_REAL) snapshot_put_real(to, a->name, a->real);
        if (a->kind == H5_TEXT) snapshot_put_text(to, a->name, a->text);
    }
    for (int i = 0; i < contents->n_arrays; ++i) {
        const struct h5_array *a = &contents->arrays[i];
        if (!strcmp(a->name, left_out) || !strcmp(a->name, "/checksums")) continue;
        void *data = snapshot_put(to, a->name, a->type, a->rank, a->shape, 0, a->shape[0]);
        must(archive_read(from, a->name, a->type, a->rank, a->shape, 0, a->shape[0], data));
    }
    must(snapshot_write(to, path_cut));
    snapshot_free(to);
    archive_close(from);
}

/* On the process alone. The whole copy is fine: it is the missing array that is refused. */
static int check_missing_state(const struct variant *variant) {
    struct toy toy;
    struct text text = text_of_symbols();
    struct progress progress = {0};
    int arrays = 0;
    must(toy_init(&toy, variant, world));
    for (int i = -1; i < toy.model.params.count; ++i) {
        const struct param *p = i < 0 ? NULL : toy.model.params.list[i];
        char name[H5_MAX_NAME] = "", expected[2 * H5_MAX_NAME];
        if (p && p->placement != PLACE_STATE) continue;
        if (p) snprintf(name, sizeof name, "/state/%s", p->name);
        copy_without(name);
        enum status status = checkpoint_resume(path_cut, &toy.step, &(struct diagnostics){0},
                                               &(struct legend){.vocabulary = &text.vocabulary}, &progress);
        snprintf(expected, sizeof expected, "%s: %s: expected an array, found none", path_cut, name);
        if (status != (p ? STATUS_CHECKPOINT : STATUS_OK) || (p && strcmp(status_message(), expected) != 0))
            fail(variant->name, "without %s: status %d, '%s'", name, (int)status, status_message());
        status_clear();
        arrays += p != NULL;
    }
    toy_free(&toy);
    remove(path_cut);
    return arrays;
}

/* ---- Gradients against differences ---- */

/* The same step again and again: of the attention memory as it was. */
struct point {
    struct toy *toy;
    struct history *history;
    int64_t number, memory_length;
    real *memory, *data, *grad; /* data, grad [trained] at the point */
};

static void evaluate_at(struct point *point, bool keep) {
    struct memory *memory = &point->toy->step.memory;
    memory->length = point->memory_length;
    memcpy(memory->data, point->memory,
           (size_t)(memory->layers * memory->rows * memory->capacity * memory->d_model) * sizeof *memory->data);
    toy_gradients(point->toy, point->history, point->number, keep);
}

static struct point point_take(struct toy *toy, struct history *history, int64_t number) {
    struct memory *memory = &toy->step.memory;
    size_t trained = (size_t)toy->model.params.trained * sizeof(real),
           held = (size_t)(memory->layers * memory->rows * memory->capacity * memory->d_model) * sizeof(real);
    struct point point = {
        toy, history, number, memory->length, take_zeroed(held), take_zeroed(trained), take_zeroed(trained)};
    memcpy(point.memory, memory->data, held);
    evaluate_at(&point, true);
    memcpy(point.data, toy->model.params.data, trained); /* as the forward may have changed them */
    memcpy(point.grad, toy->model.params.grad, trained);
    return point;
}

static void point_free(struct point *point) {
    free(point->memory);
    free(point->data);
    free(point->grad);
}

static int compare_double(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double stat_loss(const struct step *step) { return step->stats.loss; }
static double stat_task(const struct step *step) { return step->stats.task; }
static double stat_vq(const struct step *step) { return step->stats.vq; }

/* Differences in directions of random signs, whose squared error estimates the squared L2 error of the array's
 * gradient. Of three the middle one: a direction may cross the kink of a hidden unit. Relative to the gradient of the
 * array, or where that is small to a thousandth of the whole. */
static double gradient_error(struct point *point, const struct param *p, double whole,
                             double (*stat)(const struct step *), double scale) {
    const double h = 1e-6;
    double errors[3], norm = 0;
    const real *grad = point->grad + p->offset, *data = point->data + p->offset;
    for (int64_t i = 0; i < p->size; ++i) norm += (double)grad[i] * (double)grad[i];
    for (int k = 0; k < 3; ++k) {
        double slope = 0, values[2];
        for (int side = 0; side < 2; ++side) {
            for (int64_t i = 0; i < p->size; ++i) {
                double sign = noise(hash_string(p->name) + (uint64_t)k, (uint64_t)i) > 0 ? 1 : -1;
                p->data[i] = data[i] + (real)((side ? h : -h) * sign);
                if (side) slope += sign * (double)grad[i];
            }
            evaluate_at(point, false);
            values[side] = stat(&point->toy->step);
        }
        memcpy(point->toy->model.params.data, point->data, (size_t)point->toy->model.params.trained * sizeof *data);
        errors[k] = fabs(scale * (values[1] - values[0]) / (2 * h) - slope);
    }
    qsort(errors, 3, sizeof *errors, compare_double);
    return errors[1] / fmax(sqrt(norm), 1e-3 * whole);
}

static double norm_of(const real *x, int64_t n) {
    double squares = 0;
    for (int64_t i = 0; i < n; ++i) squares += (double)x[i] * (double)x[i];
    return sqrt(squares);
}

/* Whether the name has one of the words; NULL: any name. */
static bool is_wanted(const char *name, const char *const *words) {
    if (!words) return true;
    for (; *words; ++words)
        if (strstr(name, *words)) return true;
    return false;
}

static double worst_gradient(const char *name, struct point *point, const char *const *words,
                             double (*stat)(const struct step *), double scale) {
    const struct params *params = &point->toy->model.params;
    double worst = 0, whole = norm_of(point->grad, params->trained);
    for (int i = 0; i < params->count; ++i) {
        const struct param *p = params->list[i];
        if (p->placement == PLACE_STATE || !is_wanted(p->name, words)) continue;
        double error = gradient_error(point, p, whole, stat, scale);
        if (!(error <= tolerance_gradient))
            fail(name, "gradient of %s in step %lld: relative error %.3g", p->name, (long long)point->number, error);
        worst = fmax(worst, error);
    }
    return worst;
}

/* In the first step, and when all stages have begun. */
static double check_router_gradient(const struct variant *variant) {
    struct variant alone = *variant;
    struct toy toy;
    struct history history = {0};
    double worst = 0;
    variant_set(&alone, "moe.mode=continuous");
    must(toy_init(&toy, &alone, world));
    toy_start(&toy);
    for (int64_t number = 0; number < STEPS; ++number) {
        if (number == 0 || number == STEPS - 1) {
            struct point point = point_take(&toy, &history, number);
            worst = fmax(worst, worst_gradient(variant->name, &point, NULL, stat_loss, 1));
            point_free(&point);
        }
        toy_step(&toy, &history, number, true);
    }
    history_free(&history);
    toy_free(&toy);
    return worst;
}

/* One layer: its codes do not reach its own input. beta 1: each side of the error once. */
static double check_quantizer_gradient(const struct variant *variant) {
    static const char *const behind[] = {".moe.", ".moe_norm.", ".mix.", ".quantizer.up", "softmax.bias", NULL};
    struct variant one = *variant;
    struct toy toy;
    struct history history = {0};
    variant_set(&one, "model.layers=1");
    variant_set(&one, "quantizer.beta=1");
    variant_set(&one, "router.balance=0");
    must(toy_init(&toy, &one, world));
    toy_start(&toy);
    toy_step(&toy, &history, 0, true);
    struct quantizer *quantizer = &toy.model.blocks[0].moe.quantizer;
    double sides = quantizer->kind->codes_lose + quantizer->beta;
    quantizer->alpha = 0;
    struct point point = point_take(&toy, &history, 1);
    double worst = worst_gradient(variant->name, &point, behind, stat_task, 1);
    quantizer->alpha = 1;
    evaluate_at(&point, false);
    for (int64_t i = 0; i < toy.model.params.trained; ++i) point.grad[i] = toy.model.params.grad[i] - point.grad[i];
    if (norm_of(point.grad, toy.model.params.trained) < 1e-3) fail(variant->name, "L_vq has no gradient");
    worst = fmax(worst, worst_gradient(variant->name, &point, NULL, stat_vq, 1 / sides));
    point_free(&point);
    history_free(&history);
    toy_free(&toy);
    return worst;
}

/* ---- All of a case ---- */

static void check_variant(const struct variant *variant, double (*gradient)(const struct variant *)) {
    struct comm *self = comm_self_new();
    struct history history = {0};
    struct toy alone, here, resumed, resumed_alone;
    struct text text = text_of_symbols();
    double losses[STEPS], error = 0, other = 0;
    must(toy_init(&alone, variant, self));
    must(toy_init(&here, variant, world));
    toy_start(&alone);
    toy_start(&here);
    for (int64_t s = 0; s < STEPS; ++s) losses[s] = toy_step(&alone, &history, s, true);
    for (int64_t s = 0; s < STEPS; ++s) {
        if (s == STOP)
            must(checkpoint_write(path, &here.step, &(struct diagnostics){0},
                                  &(struct legend){.vocabulary = &text.vocabulary},
                                  &(struct progress){.step = s, .segment = s, .best_valid = INFINITY}));
        double now = relative(toy_step(&here, &history, s, false), losses[s]);
        if (!(now <= tolerance)) fail(variant->name, "step %lld: loss differs by %.3g", (long long)s, now);
        error = fmax(error, now);
        expect_same_on_all_ranks(variant->name, &here.model, s);
    }
    if (!(losses[STEPS - 1] > 0)) fail(variant->name, "loss %g", losses[STEPS - 1]);
    double state = largest(state_error(&here.model, &alone.model)), widest = largest(here.routes.widest);
    if (!(state <= tolerance_state)) fail(variant->name, "state differs by %.3g", state);
    if (!(widest <= tolerance)) fail(variant->name, "a flip by %.3g, which is no tie", widest);

    resume(&resumed, variant, world);
    resume(&resumed_alone, variant, self);
    for (int64_t s = STOP; s < STEPS; ++s) {
        toy_step(&resumed, &history, s, false);
        other = fmax(other, relative(toy_step(&resumed_alone, &history, s, false), losses[s]));
    }
    expect_same_model(variant->name, &resumed, &here);
    if (!(other <= tolerance)) fail(variant->name, "resumed on 1 rank: loss differs by %.3g", other);
    toy_free(&resumed);
    toy_free(&resumed_alone);
    toy_free(&alone);
    toy_free(&here);
    history_free(&history);
    comm_free(self);

    bool single = !strcmp(world->ops->name, "self");
    int arrays = single ? check_missing_state(variant) : 0;
    double slopes = single && is_double && gradient ? gradient(variant) : 0;
    comm_barrier(world);
    if (world->rank == 0) {
        printf("%-44s loss %.1e, resumed alone %.1e, state %.1e, flips %.1e", variant->name, error, other, state,
               widest);
        if (single) printf(", %d arrays of state", arrays);
        if (single && is_double && gradient) printf(", gradient %.1e", slopes);
        putchar('\n');
        remove(path);
    }
}

/* The light router learns in the first stage and stands still in the second, whatever its moments are. */
static void check_light_router(void) {
    struct variant variant = variant_of("light router");
    struct toy toy;
    struct history history = {0};
    struct comm *self = comm_self_new();
    variant_set(&variant, "router.kind=stablemoe");
    variant_set(&variant, "router.two_stage=true");
    must(toy_init(&toy, &variant, self));
    toy_start(&toy);
    const struct params *params = &toy.model.params;
    real *before = take_zeroed((size_t)params->total * sizeof *before);
    for (int64_t s = 0; s < STEPS; ++s) {
        bool first = s < toy.config.router.switch_step;
        memcpy(before, params->data, (size_t)params->total * sizeof *before);
        toy_step(&toy, &history, s, true);
        if (first != (toy.step.stats.distill > 0)) fail(variant.name, "distill loss in step %lld", (long long)s);
        for (int i = 0; i < params->count; ++i) {
            const struct param *p = params->list[i];
            if (!strstr(p->name, "router.token_embedding") && !strstr(p->name, "router.centroids")) continue;
            if (first == same_bits(p->data, before + p->offset, p->size))
                fail(variant.name, "%s in step %lld: %s", p->name, (long long)s, first ? "still" : "moved");
        }
    }
    free(before);
    history_free(&history);
    toy_free(&toy);
    comm_free(self);
}

/* In mode `joint` where the kind can do that. */
static void check_router(struct variant variant) {
    struct comm *self = comm_self_new();
    struct toy toy;
    if (toy_init(&toy, &variant, self))
        variant_set(&variant, "moe.mode=continuous");
    else
        toy_free(&toy);
    comm_free(self);
    check_variant(&variant, check_router_gradient);
}

static void check_routers(void) {
    static const char *const more[][6] = {
        {"two stages, experts on all ranks", "router.kind=stablemoe", "router.two_stage=true", "parallel.expert=1"},
        {"two stages, resumed in the first", "router.kind=stablemoe", "router.two_stage=true", "router.switch_step=9",
         "router.top_k=2", "router.capacity=1.1"},
        {"top 2 of a softmax over 2, little room", "router.kind=smoe", "router.top_k=2", "router.normalize=topk",
         "router.capacity=0.6", "train.accumulate=2"},
        {"k from 1 to 3", "router.kind=smoe_dropout", "router.k_min=1", "router.k_max=3", "router.capacity=1.1",
         "train.accumulate=2"},
        {"k of all, half of them the least", "router.kind=smoe_dropout", "router.k_min=auto", "router.k_max=auto",
         "router.normalize=topk"},
        {"cluster, resumed before the fit", "router.kind=cluster", "router.switch_step=9", "router.clusters=3",
         "train.accumulate=2", "router.tau=1"},
        {"xmoe, top 2, 3 parts", "router.kind=xmoe", "router.top_k=2", "train.accumulate=3", "parallel.expert=1"},
        {"dense, twice as wide", "router.kind=dense", "router.dense_width=2", "train.accumulate=2"},
    };
    for (int i = 0; i < router_n_kinds; ++i)
        for (int limited = 0; limited < 2; ++limited) {
            char name[96];
            snprintf(name, sizeof name, "%s%s", router_kinds[i]->name, limited ? ", capacity 1.1" : "");
            struct variant variant = variant_of(name);
            variant_set(&variant, "router.kind=%s", router_kinds[i]->name);
            if (limited) variant_set(&variant, "router.capacity=1.1");
            check_router(variant);
        }
    for (size_t i = 0; i < sizeof more / sizeof *more; ++i) {
        struct variant variant = variant_of(more[i][0]);
        for (int j = 1; j < 6 && more[i][j]; ++j) variant_set(&variant, "%s", more[i][j]);
        check_router(variant);
    }
}

static void check_quantizers(void) {
    static const char *const more[][6] = {
        {"more codes", "quantizer.codes=10"},
        {"fewer codes, 2 parts", "quantizer.codes=3", "train.accumulate=2", "quantizer.decay=0.5"},
        {"discrete", "moe.mode=discrete", "quantizer.codes=9", "moe.share_norm=false", "parallel.expert=1"},
        {"blend", "quantizer.straight_through=blend", "quantizer.contribution=0.3", "quantizer.decay=0.5"},
    };
    for (int i = 0; i < quantizer_n_kinds; ++i)
        for (size_t j = 0; j < sizeof more / sizeof *more; ++j) {
            char name[96];
            snprintf(name, sizeof name, "%s, %s", quantizer_kinds[i]->name, more[j][0]);
            struct variant variant = variant_of(name);
            variant_set(&variant, "router.kind=smoe");
            variant_set(&variant, "quantizer.kind=%s", quantizer_kinds[i]->name);
            for (int k = 1; k < 6 && more[j][k]; ++k) variant_set(&variant, "%s", more[j][k]);
            if (quantizer_kinds[i]->full_only && strstr(more[j][1], "blend")) continue;
            check_variant(&variant, check_quantizer_gradient);
        }
}

/* One rank's state is spoilt after two good steps: a build with assertions ends in the third. */
static void go_astray(void) {
    struct variant variant = variant_of("astray");
    struct toy toy;
    struct history history = {0};
    variant_set(&variant, "router.kind=smoe_dropout");
    variant_set(&variant, "quantizer.kind=ema");
    must(toy_init(&toy, &variant, world));
    toy_start(&toy);
    for (int64_t s = 0; s < 3; ++s) {
        for (int i = 0; s == 2 && world->rank == world->size - 1 && i < toy.model.params.count; ++i)
            if (toy.model.params.list[i]->placement == PLACE_STATE) toy.model.params.list[i]->data[0] += (real)0x1p-10;
        toy_step(&toy, &history, s, true);
        comm_barrier(world);
        if (world->rank == 0) fprintf(stderr, "step %d is over\n", (int)s);
    }
    history_free(&history);
    toy_free(&toy);
}

int main(int argc, char **argv) {
    bool alone = argc > 1 && !strcmp(argv[1], "self"), astray = argc > 1 && !strcmp(argv[1], "astray");
    if (!alone) MPI_Init(&argc, &argv);
    world = alone ? comm_self_new() : comm_mpi_new();
    log_init(world->rank);
    ops_init_cpu(1, PRECISION_FP32);
    snprintf(path, sizeof path, "kinds.%d%s.h5", world->size, alone ? ".self" : "");
    snprintf(path_cut, sizeof path_cut, "kinds.%d.cut.h5", world->size);
    if (astray) {
        go_astray();
    } else {
        check_light_router();
        check_routers();
        check_quantizers();
    }
    int64_t total = failures;
    comm_allreduce(world, &total, 1, COMM_INT64, COMM_SUM);
    if (world->rank == 0) printf("kinds: %d ranks, " REAL_NAME ", %lld failures\n", world->size, (long long)total);
    comm_free(world);
    if (!alone) MPI_Finalize();
    return total ? 1 : 0;
}
