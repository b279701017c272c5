/* What one training step asks of a GPU, by kernel: bytes and operations as the emulation counts them, with the memory
 * of attention full. On one rank or several; each checks that the rows it sent are those that its plans send to others.
 * Usage: counts OUT.csv CONFIG.yaml... key=value...
 *
 * Lines of OUT.csv, rank 0's:
 *     meta,KEY,VALUE
 *     kernel,PART,NAME,launches,operations, and loaded and stored bytes: requested, by blocks, least; shared
 *     operation,NAME,calls,least bytes,operations (train/op_times.h)
 *     product,PART,N,O,I,count,bytes of a factor's element,adds
 * where PART is attention_forward, attention_backward or rest, and numbers are those of count.h. NAME has commas: it is
 * in quotes. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/rng.h"
#include "emulation/count.h"
#include "train/op_times.h"
#include "train/optimizer.h"
#include "train/start.h"
#include "train/step.h"

enum { SYMBOLS = 205, MOST_ARGUMENTS = 64 }; /* distinct bytes of enwik8 */

static struct ops counted; /* the device's, with attention between marks */
static const struct ops *plain;
static FILE *out;
static const char *part = "rest";

/* ---- Counts of a part of the step ---- */

static void put_kernel(const char *kernel, const struct emulation_count *c, void *context) {
    (void)context;
    fprintf(out, "kernel,%s,\"%s\",%.0f,%.0f,%.0f,%.0f,%.0f,%.0f,%.0f,%.0f,%.0f\n", part, kernel, c->launches,
            c->operations, c->loaded, c->stored, c->block_loaded, c->block_stored, c->least_loaded, c->least_stored,
            c->shared_loaded);
}

static void put_product(const struct emulation_product *p, void *context) {
    (void)context;
    fprintf(out, "product,%s,%lld,%lld,%lld,%lld,%d,%d\n", part, (long long)p->N, (long long)p->O, (long long)p->I,
            (long long)p->count, p->factor_bytes, p->adds);
}

/* What was queued so far belongs to the part that ends here. */
static void begin_part(const char *name) {
    device->finish(device->mark(QUEUE_COMPUTE));
    if (out) {
        emulation_count_each(put_kernel, NULL);
        emulation_products_each(put_product, NULL);
    }
    emulation_count_reset();
    part = name;
}

static void forward_part(real *to, real *lse, const real *q, const real *k, const real *v, const real *r,
                         const real *bias_w, const real *bias_r, struct arena *scratch,
                         const struct attention_shape *shape) {
    begin_part("attention_forward");
    plain->attention_forward(to, lse, q, k, v, r, bias_w, bias_r, scratch, shape);
    begin_part("rest");
}

static void backward_part(real *dq, real *dk, real *dv, real *dr, real *dbias_w, real *dbias_r, const real *dout,
                          const real *to, const real *lse, const real *q, const real *k, const real *v, const real *r,
                          const real *bias_w, const real *bias_r, struct arena *scratch,
                          const struct attention_shape *shape) {
    begin_part("attention_backward");
    plain->attention_backward(dq, dk, dv, dr, dbias_w, dbias_r, dout, to, lse, q, k, v, r, bias_w, bias_r, scratch,
                              shape);
    begin_part("rest");
}

/* ---- Rows on the wire ---- */

static int64_t rows_elsewhere(const struct comm_blocks *blocks, const struct comm *group) {
    int64_t rows = 0;
    for (int p = 0, i = 0; p < group->size; ++p)
        for (int end = i + blocks->per_peer[p]; i < end; ++i) rows += p == group->rank ? 0 : blocks->count[i];
    return rows;
}

/* Rows of this rank's tokens go to their experts and come back, forward and backward; numbers of the continuous path's
 * rows go with them once, for dropout. */
static int64_t bytes_routed(const struct moe_path *path, const struct model *model, bool numbers) {
    int64_t row = model->d_model * (int64_t)sizeof(real), own = rows_elsewhere(&path->plan.home, model->group);
    return 2 * (own + rows_elsewhere(&path->plan.away, model->group)) * row +
           (numbers ? own * (int64_t)sizeof(int64_t) : 0);
}

static int check_wire(const struct model *model) {
    const struct config *config = model->config;
    int64_t routed = 0, sent = 0;
    for (int64_t i = 0; i < model->layers; ++i) {
        const struct moe *moe = &model->blocks[i].moe;
        if (moe->mode != MOE_DISCRETE) routed += bytes_routed(&moe->continuous, model, config->model.dropout > 0);
        if (moe->mode != MOE_CONTINUOUS) routed += bytes_routed(&moe->discrete, model, false);
    }
    for (int p = 0; model->group->sent && p < model->group->size; ++p)
        sent += p == model->group->rank ? 0 : model->group->sent[p];
    if (out) fprintf(out, "meta,wire_bytes,%lld\n", (long long)sent);
    if (sent == routed && (sent > 0) == (model->group->size > 1)) return 0;
    printf("rank %d: %lld bytes of rows on the wire, %lld routed off the rank\n", model->group->rank, (long long)sent,
           (long long)routed);
    return 1;
}

/* ---- The step ---- */

static void random_batch(const struct step *step, int32_t *tokens, int32_t *targets) {
    for (int64_t i = 0; i < step->rows * step->model->config->model.segment; ++i) {
        uint32_t words[4];
        rng_words(words, rng_place(1, 0, RNG_SAMPLE, step->model->world->rank, 0), (uint32_t)i, 0);
        tokens[i] = (int32_t)(words[0] % SYMBOLS);
        targets[i] = (int32_t)(words[1] % SYMBOLS);
    }
}

static void put_meta(const struct step *step) {
    const struct config *config = step->model->config;
    const struct params *params = &step->model->params;
    int64_t experts = 0;
    for (int i = 0; i < params->count; ++i)
        if (params->list[i]->placement == PLACE_EXPERT) experts += params->list[i]->size;
    fprintf(out, "meta,paths,%d\n", config->moe.mode == MOE_JOINT ? 2 : 1);
    fprintf(out, "meta,ranks,%d\nmeta,rows,%lld\nmeta,segment,%lld\nmeta,memory,%lld\nmeta,layers,%lld\n",
            step->model->world->size, (long long)step->rows, (long long)config->model.segment,
            (long long)config->model.memory, (long long)config->model.layers);
    fprintf(out, "meta,heads,%lld\nmeta,experts,%lld\nmeta,d_model,%lld\nmeta,relative,%d\nmeta,bf16,%d\n",
            (long long)config->model.heads, (long long)config->moe.experts, (long long)config->model.d_model,
            config->model.attention == ATTENTION_RELATIVE, config->precision == PRECISION_KIND_BF16);
    fprintf(out, "meta,replicated_bytes,%lld\nmeta,expert_bytes,%lld\n",
            (long long)((params->trained - experts) * (int64_t)sizeof(real)),
            (long long)(experts * (int64_t)sizeof(real)));
}

static void put_operations(const struct op_times *times) {
    for (int i = 0; i < OP_TIMES; ++i)
        if (times->op[i].calls)
            fprintf(out, "operation,%s,%lld,%.0f,%.0f\n", times->op[i].name, (long long)times->op[i].calls,
                    times->op[i].bytes, times->op[i].operations);
}

static int count_step(struct model *model) {
    struct step step;
    struct op_times times;
    model_start(model);
    step_init(&step, model);
    size_t n = (size_t)(step.rows * model->config->model.segment + 1);
    int32_t *tokens = malloc(n * sizeof *tokens), *targets = malloc(n * sizeof *targets);
    if (!tokens || !targets) FATAL("out of memory");
    random_batch(&step, tokens, targets);
    step.memory.length = step.memory.capacity;
    device->finish(device->mark(QUEUE_COMPUTE));
    emulation_count_reset();
    op_times_begin(&times);
    step_gradients(&step, 0, NULL, tokens, targets);
    optimizer_update(model, 0);
    model_after_step(model, 0);
    begin_part("rest");
    op_times_end(&times);
    if (out) put_meta(&step);
    if (out) put_operations(&times);
    op_times_free(&times);
    int failed = check_wire(model);
    free(tokens);
    free(targets);
    step_free(&step);
    return failed;
}

/* Arguments with a '=' are overrides, others files. */
static enum status configure(struct config *config, int count, char **arguments, struct comm *world) {
    const char *files[MOST_ARGUMENTS], *overrides[MOST_ARGUMENTS];
    int n_files = 0, n_overrides = 0;
    overrides[n_overrides++] = "device=cuda";
    for (int i = 0; i < count && i + 1 < MOST_ARGUMENTS; ++i)
        *(strchr(arguments[i], '=') ? &overrides[n_overrides++] : &files[n_files++]) = arguments[i];
    enum status status = config_load(config, files, n_files, overrides, n_overrides);
    if ((status = comm_agree(world, status))) return status;
    return start_operations(config, world);
}

int main(int argc, char **argv) {
    int size, failed = 1, threads;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &threads);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    struct comm *world = size > 1 ? comm_mpi_new() : comm_self_new();
    struct config config;
    struct model model = {0};
    log_init(world->rank);
    if (argc < 3) FATAL("usage: counts OUT.csv CONFIG.yaml... key=value...");
    enum status status = configure(&config, argc - 2, argv + 2, world);
    if (!status) {
        plain = ops;
        counted = *ops;
        counted.attention_forward = forward_part, counted.attention_backward = backward_part;
        ops = &counted;
        status = comm_agree(world, model_init(&model, &config, SYMBOLS, 0, world, true));
    }
    if (!status) {
        if (world->rank == 0 && !(out = fopen(argv[1], "w"))) FATAL("%s: cannot be written", argv[1]);
        failed = count_step(&model);
        if (out && fclose(out)) FATAL("%s: cannot be written", argv[1]);
    }
    if (status && status_message()[0]) log_error(status_message());
    model_free(&model);
    comm_free(world);
    MPI_Finalize();
    return failed;
}
