#include "train/step_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "train/checkpoint.h"

static const enum h5type real_type = sizeof(real) == sizeof(double) ? H5T_FLOAT64 : H5T_FLOAT32;
static const char *const path_names[ROUTE_PATHS] = {"experts", "codes"};

/* In update `number`; number < 0: in the one with the most. */
static int64_t choices_per_token(const struct step *step, enum route_path path, int64_t number) {
    const struct router *router = &step->lm->blocks[0].moe.router;
    enum moe_mode mode = step->lm->config->moe.mode;
    if (path == ROUTE_CODES) return mode == MOE_CONTINUOUS ? 0 : 1;
    if (mode == MOE_DISCRETE || !step->lm->E) return 0;
    return number < 0 ? router->K_max : router_choices(router, number);
}

void routes_allocate(struct routes *routes, const struct step *step) {
    int64_t tokens = step->rows * step->lm->config->model.segment;
    for (int path = 0; path < ROUTE_PATHS; ++path) {
        int64_t K = choices_per_token(step, (enum route_path)path, -1);
        if (!K) continue;
        routes->choices[path] = calloc((size_t)step->lm->layers, sizeof *routes->choices[path]);
        for (int64_t i = 0; routes->choices[path] && i < step->lm->layers; ++i)
            if (!(routes->choices[path][i] = malloc((size_t)(tokens * K + 1) * sizeof(int32_t))))
                FATAL("out of memory");
        if (!routes->choices[path]) FATAL("out of memory");
    }
}

void routes_free(struct routes *routes, const struct step *step) {
    for (int path = 0; path < ROUTE_PATHS; ++path) {
        for (int64_t i = 0; routes->choices[path] && i < step->lm->layers; ++i) free(routes->choices[path][i]);
        free(routes->choices[path]);
    }
    *routes = (struct routes){0};
}

static enum status check_range(struct h5file *file, const char *name, const int32_t *values, int64_t n, int64_t limit) {
    for (int64_t i = 0; i < n; ++i)
        if (values[i] < 0 || values[i] >= limit)
            return status_fail(STATUS_CHECKPOINT, "%s: %s: expected values from 0 to %lld, found %d", h5file_path(file),
                               name, (long long)limit - 1, values[i]);
    return STATUS_OK;
}

/* Integers of this rank's rows from or to a global array [B rows_per_row, width]; rank 1: without the second axis. What
 * is read lies in 0 .. limit - 1, or is an error that all ranks return. */
static enum status transfer(struct h5file *file, const char *name, const struct step *step, int rank,
                            int64_t rows_per_row, int64_t width, int32_t *values, int64_t limit, bool back) {
    int64_t shape[] = {step->lm->config->train.batch * rows_per_row, width}, most = step->rows * rows_per_row * width;
    int64_t *wide = malloc((size_t)(most + 1) * sizeof *wide);
    if (!wide) FATAL("out of memory");
    enum status status = STATUS_OK;
    for (int64_t j = 0; j < step->accumulate && !status; ++j) {
        const struct micro_batch *micro = &step->micro[j];
        int64_t first = micro->first * rows_per_row, count = micro->rows * rows_per_row;
        int32_t *here = values + micro->local * rows_per_row * width;
        for (int64_t i = 0; i < count * width && !back; ++i) wide[i] = here[i];
        status = back ? h5file_read(file, name, H5T_INT64, rank, shape, first, count, wide)
                      : h5file_write(file, name, H5T_INT64, rank, shape, first, count, wide);
        for (int64_t i = 0; i < count * width && back && !status; ++i)
            here[i] = wide[i] == (int32_t)wide[i] ? (int32_t)wide[i] : -1;
    }
    free(wide);
    if (back) status = comm_agree(step->lm->world, status ? status : check_range(file, name, values, most, limit));
    return status;
}

static enum status transfer_routes(struct h5file *file, const char *group, const struct routes *routes,
                                   const struct step *step, int64_t number, bool back) {
    enum status status = STATUS_OK;
    for (int path = 0; path < ROUTE_PATHS; ++path)
        for (int64_t i = 0; routes->choices[path] && i < step->lm->layers && !status; ++i) {
            char name[H5_MAX_NAME];
            snprintf(name, sizeof name, "%s/%lld/%s", group, (long long)i, path_names[path]);
            status = transfer(file, name, step, path == ROUTE_CODES ? 1 : 2, step->lm->config->model.segment,
                              choices_per_token(step, (enum route_path)path, number), routes->choices[path][i],
                              path == ROUTE_CODES ? step->codes : step->lm->E, back);
        }
    return status;
}

enum status routes_write(struct h5file *file, const char *group, const struct routes *routes, const struct step *step,
                         int64_t number) {
    return transfer_routes(file, group, routes, step, number, false);
}

enum status routes_read(struct h5file *file, const char *group, struct routes *routes, const struct step *step,
                        int64_t number) {
    return transfer_routes(file, group, routes, step, number, true);
}

static enum status write_before(struct h5file *file, const struct step *step, int64_t number, const int32_t *tokens,
                                const int32_t *targets) {
    const struct config *config = step->lm->config;
    struct config resolved = *config; /* a reader need not know what auto means */
    resolved.quantizer.codes = step->codes;
    char *json = config_to_json(&resolved);
    enum status status = h5file_write_text(file, "configuration", json);
    free(json);
    if (!status) status = h5file_write_int(file, "step", number);
    if (!status) status = h5file_write_int(file, "seed", config->run.seed);
    if (!status)
        status = transfer(file, "/tokens", step, 2, 1, config->model.segment, (int32_t *)tokens, step->lm->V, false);
    if (!status)
        status = transfer(file, "/targets", step, 2, 1, config->model.segment, (int32_t *)targets, step->lm->V, false);
    if (!status) status = checkpoint_write_arrays(file, "/parameters", &step->lm->params, false, step->lm->params.data);
    if (!status) status = checkpoint_write_arrays(file, "/state", &step->lm->params, true, step->lm->params.data);
    if (!status) status = checkpoint_write_memory(file, "/memory", step);
    return status;
}

static enum status write_logits(struct h5file *file, const struct step *step) {
    const struct config *config = step->lm->config;
    int64_t L = config->model.segment, shape[] = {config->train.batch, L, step->lm->V};
    enum status status = STATUS_OK;
    for (int64_t j = 0; j < step->accumulate && !status; ++j) {
        const struct micro_batch *micro = &step->micro[j];
        status = h5file_write(file, "/logits", real_type, 3, shape, micro->first, micro->rows,
                              step->keep_logits + micro->local * L * step->lm->V);
    }
    return status;
}

/* State, and the codes that the quantizer itself moves. */
static enum status write_moved(struct h5file *file, const struct step *step) {
    struct params *params = &step->lm->params;
    enum status status = checkpoint_write_arrays(file, "/after", params, true, params->data);
    for (int64_t i = 0; i < step->lm->layers && !status; ++i) {
        const struct quantizer *quantizer = &step->lm->blocks[i].moe.quantizer;
        const struct param *p = quantizer->table;
        char name[H5_MAX_NAME];
        if (!p || p->placement == PLACE_STATE || !quantizer->kind->after_step) continue;
        snprintf(name, sizeof name, "/after/%s", p->name);
        status = checkpoint_write_array(file, name, p, p->data);
    }
    return status;
}

static enum status write_after(struct h5file *file, const struct step *step, int64_t number,
                               const struct routes *routes) {
    const struct step_stats *stats = &step->stats;
    enum status status = write_logits(file, step);
    if (!status) status = checkpoint_write_arrays(file, "/gradients", &step->lm->params, false, step->lm->params.grad);
    if (!status) status = routes_write(file, "/routes", routes, step, number);
    if (!status) status = checkpoint_write_memory(file, "/memory_after", step);
    if (!status) status = h5file_write_double(file, "loss", stats->loss);
    if (!status) status = h5file_write_double(file, "task_loss", stats->task);
    if (!status) status = h5file_write_double(file, "vq_loss", stats->vq);
    if (!status) status = h5file_write_double(file, "balance_loss", stats->balance);
    if (!status) status = h5file_write_double(file, "distill_loss", stats->distill);
    if (!status) lm_after_step(step->lm, number);
    if (!status) status = write_moved(file, step);
    return status;
}

enum status step_file_write(const char *path, struct step *step, int64_t number, const int32_t *tokens,
                            const int32_t *targets) {
    struct h5file *file = NULL;
    struct routes routes = {0};
    enum status status = h5file_create(&file, path, comm_mpi_handle(step->lm->world));
    if (status) return comm_agree(step->lm->world, status);
    routes_allocate(&routes, step);
    step->keep_logits = malloc((size_t)(step->rows * step->lm->config->model.segment * step->lm->V + 1) * sizeof(real));
    if (!step->keep_logits) FATAL("out of memory");
    status = write_before(file, step, number, tokens, targets);
    if (!status) {
        step_gradients(step, number, &routes, tokens, targets);
        status = write_after(file, step, number, &routes);
    }
    enum status closed = h5file_close(file);
    free(step->keep_logits);
    step->keep_logits = NULL;
    routes_free(&routes, step);
    return comm_agree(step->lm->world, status ? status : closed);
}
