#include "train/step_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "train/checkpoint.h"

static const enum h5_type real_type = sizeof(real) == sizeof(double) ? H5T_FLOAT64 : H5T_FLOAT32;
static const char *const path_names[ROUTE_PATHS] = {"experts", "codes"};

/* In update `number`; number < 0: in the one with the most. */
static int64_t choices_per_token(const struct step *step, enum route_path path, int64_t number) {
    const struct router *router = &step->model->blocks[0].moe.router;
    enum moe_mode mode = step->model->config->moe.mode;
    if (path == ROUTE_CODES) return mode == MOE_CONTINUOUS ? 0 : 1;
    if (mode == MOE_DISCRETE || !step->model->E) return 0;
    return number < 0 ? router->K_max : router_choices(router, number);
}

/* Of this rank in any one step. */
static int64_t most_tokens(const struct step *step) {
    const struct config *config = step->model->config;
    if (step->model->head.classes) return config->train.batch * config->classifier.length;
    return step->rows * config->model.segment;
}

void routes_allocate(struct routes *routes, const struct step *step) {
    int64_t tokens = most_tokens(step);
    for (int path = 0; path < ROUTE_PATHS; ++path) {
        int64_t K = choices_per_token(step, (enum route_path)path, -1);
        if (!K) continue;
        routes->choices[path] = calloc((size_t)step->model->layers, sizeof *routes->choices[path]);
        for (int64_t i = 0; routes->choices[path] && i < step->model->layers; ++i)
            if (!(routes->choices[path][i] = malloc((size_t)(tokens * K + 1) * sizeof(int32_t))))
                FATAL("out of memory");
        if (!routes->choices[path]) FATAL("out of memory");
    }
}

void routes_free(struct routes *routes, const struct step *step) {
    for (int path = 0; path < ROUTE_PATHS; ++path) {
        for (int64_t i = 0; routes->choices[path] && i < step->model->layers; ++i) free(routes->choices[path][i]);
        free(routes->choices[path]);
    }
    *routes = (struct routes){0};
}

static enum status check_range(const struct archive *archive, const char *name, const int64_t *values, int64_t n,
                               int64_t limit) {
    for (int64_t i = 0; i < n; ++i)
        if (values[i] < 0 || values[i] >= limit)
            return status_fail(STATUS_CHECKPOINT, "%s: %s: expected values from 0 to %lld, found %lld",
                               archive_path(archive), name, (long long)limit - 1, (long long)values[i]);
    return STATUS_OK;
}

/* Integers of this rank's batch rows or tokens, of a global array of all, [.., width]; rank 1: without that axis. */
struct integers {
    const struct step *step;
    bool of_tokens, all; /* all: the values are those of the whole array */
    int rank;
    int64_t width;
    int32_t *values; /* else by local row */
};

/* A micro-batch's part of them: its place in the global array, its number of rows, and its values. */
static int32_t *part_of(const struct integers *a, int64_t j, int64_t *first, int64_t *count) {
    const struct micro_batch *micro = &a->step->micro[j];
    int64_t local = a->of_tokens ? micro->token_local : micro->local;
    *first = a->of_tokens ? micro->token_first : micro->first;
    *count = a->of_tokens ? micro->tokens : micro->rows;
    return a->values + (a->all ? *first : local) * a->width;
}

static int64_t rows_of_all(const struct integers *a) {
    return a->of_tokens ? a->step->tokens_global : a->step->rows_global;
}

static void put_integers(struct snapshot *snapshot, const char *name, const struct integers *a) {
    int64_t shape[] = {rows_of_all(a), a->width}, first, count;
    for (int64_t j = 0; j < a->step->accumulate; ++j) {
        const int32_t *here = part_of(a, j, &first, &count);
        int64_t *wide = snapshot_put(snapshot, name, H5T_INT64, a->rank, shape, first, count);
        for (int64_t i = 0; i < count * a->width; ++i) wide[i] = here[i];
    }
}

/* All in 0 .. limit - 1. */
static enum status read_integers(struct archive *archive, const char *name, const struct integers *a, int64_t limit) {
    int64_t shape[] = {rows_of_all(a), a->width}, first, count;
    int64_t *wide = malloc((size_t)((a->of_tokens ? a->step->tokens : a->step->rows) * a->width + 1) * sizeof *wide);
    if (!wide) FATAL("out of memory");
    enum status status = STATUS_OK;
    for (int64_t j = 0; j < a->step->accumulate && !status; ++j) {
        int32_t *here = part_of(a, j, &first, &count);
        status = archive_read(archive, name, H5T_INT64, a->rank, shape, first, count, wide);
        if (!status) status = check_range(archive, name, wide, count * a->width, limit);
        for (int64_t i = 0; i < count * a->width && !status; ++i) here[i] = (int32_t)wide[i];
    }
    free(wide);
    return status;
}

static struct integers choices_of(const struct routes *routes, enum route_path path, int64_t layer,
                                  const struct step *step, int64_t number) {
    return (struct integers){step, .of_tokens = true, .rank = path == ROUTE_CODES ? 1 : 2,
                             .width = choices_per_token(step, path, number), .values = routes->choices[path][layer]};
}

void routes_put(struct snapshot *snapshot, const char *group, const struct routes *routes, const struct step *step,
                int64_t number) {
    for (int path = 0; path < ROUTE_PATHS; ++path)
        for (int64_t i = 0; routes->choices[path] && i < step->model->layers; ++i) {
            char name[H5_MAX_NAME];
            struct integers choices = choices_of(routes, (enum route_path)path, i, step, number);
            snprintf(name, sizeof name, "%s/%lld/%s", group, (long long)i, path_names[path]);
            put_integers(snapshot, name, &choices);
        }
}

enum status routes_read(struct archive *archive, const char *group, struct routes *routes, const struct step *step,
                        int64_t number) {
    for (int path = 0; path < ROUTE_PATHS; ++path)
        for (int64_t i = 0; routes->choices[path] && i < step->model->layers; ++i) {
            char name[H5_MAX_NAME];
            struct integers choices = choices_of(routes, (enum route_path)path, i, step, number);
            snprintf(name, sizeof name, "%s/%lld/%s", group, (long long)i, path_names[path]);
            TRY(read_integers(archive, name, &choices, path == ROUTE_CODES ? step->codes : step->model->E));
        }
    return STATUS_OK;
}

static void put_before(struct snapshot *snapshot, const struct step *step, int64_t number) {
    const struct model *model = step->model;
    struct config resolved = *model->config; /* a reader need not know what auto means */
    resolved.quantizer.codes = step->codes;
    char *json = config_to_json(&resolved);
    snapshot_put_text(snapshot, "configuration", json);
    free(json);
    snapshot_put_int(snapshot, "step", number);
    snapshot_put_int(snapshot, "seed", model->config->run.seed);
    checkpoint_put_arrays(snapshot, "/parameters", model, false, model->params.data);
    checkpoint_put_arrays(snapshot, "/state", model, true, model->params.data);
    checkpoint_put_memory(snapshot, "/memory", step);
}

static void put_logits(struct snapshot *snapshot, const struct step *step) {
    const struct config *config = step->model->config;
    int64_t row = config->model.segment * step->model->V,
            shape[] = {config->train.batch, config->model.segment, step->model->V};
    for (int64_t j = 0; j < step->accumulate; ++j) {
        const struct micro_batch *micro = &step->micro[j];
        memcpy(snapshot_put(snapshot, "/logits", real_type, 3, shape, micro->first, micro->rows),
               step->keep_logits + micro->local * row, (size_t)(micro->rows * row) * sizeof(real));
    }
}

/* State, and the codes that the quantizer itself moves. */
static void put_moved(struct snapshot *snapshot, const struct step *step) {
    const struct model *model = step->model;
    checkpoint_put_arrays(snapshot, "/after", model, true, model->params.data);
    for (int64_t i = 0; i < model->layers; ++i) {
        const struct quantizer *quantizer = &model->blocks[i].moe.quantizer;
        const struct param *p = quantizer->table;
        char name[H5_MAX_NAME];
        if (!p || p->placement == PLACE_STATE || !quantizer->kind->after_step) continue;
        snprintf(name, sizeof name, "/after/%s", p->name);
        checkpoint_put_array(snapshot, name, model, p, p->data);
    }
}

static void put_after(struct snapshot *snapshot, const struct step *step, int64_t number, const struct routes *routes) {
    const struct step_stats *stats = &step->stats;
    checkpoint_put_arrays(snapshot, "/gradients", step->model, false, step->model->params.grad);
    routes_put(snapshot, "/routes", routes, step, number);
    checkpoint_put_memory(snapshot, "/memory_after", step);
    snapshot_put_real(snapshot, "loss", stats->loss);
    snapshot_put_real(snapshot, "task_loss", stats->task);
    snapshot_put_real(snapshot, "vq_loss", stats->vq);
    snapshot_put_real(snapshot, "balance_loss", stats->balance);
    snapshot_put_real(snapshot, "distill_loss", stats->distill);
    model_after_step(step->model, number);
    put_moved(snapshot, step);
}

static enum status finish(struct snapshot *snapshot, const char *path) {
    enum status status = snapshot_write(snapshot, path);
    snapshot_free(snapshot);
    return status;
}

enum status step_file_write(const char *path, struct step *step, int64_t number, const int32_t *tokens,
                            const int32_t *targets) {
    struct snapshot *snapshot = snapshot_new(step->model->world);
    struct routes routes = {0};
    int64_t L = step->model->config->model.segment;
    routes_allocate(&routes, step);
    step->keep_logits = malloc((size_t)(step->tokens * step->model->V + 1) * sizeof(real));
    if (!step->keep_logits) FATAL("out of memory");
    put_before(snapshot, step, number);
    put_integers(snapshot, "/tokens", &(struct integers){step, .rank = 2, .width = L, .values = (int32_t *)tokens});
    put_integers(snapshot, "/targets", &(struct integers){step, .rank = 2, .width = L, .values = (int32_t *)targets});
    step_gradients(step, number, &routes, tokens, targets);
    put_logits(snapshot, step);
    put_after(snapshot, step, number, &routes);
    free(step->keep_logits);
    step->keep_logits = NULL;
    routes_free(&routes, step);
    return finish(snapshot, path);
}

static void put_batch(struct snapshot *snapshot, const struct step *step, const struct batch *batch) {
    struct integers rows = {step, .all = true, .rank = 1, .width = 1}, tokens = rows;
    tokens.of_tokens = true;
    rows.values = (int32_t *)batch->lengths;
    put_integers(snapshot, "/lengths", &rows);
    rows.values = (int32_t *)batch->labels;
    put_integers(snapshot, "/labels", &rows);
    tokens.values = (int32_t *)batch->tokens;
    put_integers(snapshot, "/tokens", &tokens);
}

/* What every rank has all of: the first one writes it. */
static void put_class_arrays(struct snapshot *snapshot, const struct step *step, const struct batch *batch) {
    int64_t C = step->model->head.classes, shape[] = {batch->rows, C}, first = step->model->world->rank == 0;
    real *weights = snapshot_put(snapshot, "/class_weights", real_type, 1, &C, 0, first * C);
    for (int64_t c = 0; c < first * C; ++c) weights[c] = batch->weights ? (real)batch->weights[c] : 1;
    memcpy(snapshot_put(snapshot, "/logits", real_type, 2, shape, 0, first * batch->rows), step->class_logits,
           (size_t)(first * batch->rows * C) * sizeof(real));
}

enum status step_file_write_batch(const char *path, struct step *step, int64_t number, const struct batch *batch) {
    struct snapshot *snapshot = snapshot_new(step->model->world);
    struct routes routes = {0};
    routes_allocate(&routes, step);
    put_before(snapshot, step, number);
    step_queue_batch(step, number, &routes, batch);
    step_collect(step);
    put_batch(snapshot, step, batch);
    put_class_arrays(snapshot, step, batch);
    put_after(snapshot, step, number, &routes);
    routes_free(&routes, step);
    return finish(snapshot, path);
}
