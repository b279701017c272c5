#include "train/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static const enum h5type real_type = sizeof(real) == sizeof(double) ? H5T_FLOAT64 : H5T_FLOAT32;

enum status checkpoint_write_array(struct h5file *file, const char *name, const struct param *p, const real *at) {
    const real *values = device_view(at, (size_t)p->size * sizeof *at);
    enum status status = h5file_write(file, name, real_type, p->rank, p->shape, p->first, p->count, values);
    device_view_close(values, at);
    return status;
}

static enum status read_array(struct h5file *file, const char *name, const struct param *p, real *at) {
    size_t bytes = (size_t)p->size * sizeof *at;
    real *values = device_edit(at, bytes);
    enum status status = h5file_read(file, name, real_type, p->rank, p->shape, p->first, p->count, values);
    device_edit_close(values, at, bytes);
    return status;
}

enum status checkpoint_write_arrays(struct h5file *file, const char *group, const struct params *params, bool state,
                                    const real *vector) {
    for (int i = 0; i < params->count; ++i) {
        const struct param *p = params->list[i];
        char name[H5_MAX_NAME];
        if ((p->placement == PLACE_STATE) != state) continue;
        snprintf(name, sizeof name, "%s/%s", group, p->name);
        TRY(checkpoint_write_array(file, name, p, vector + p->offset));
    }
    return STATUS_OK;
}

enum status checkpoint_read_arrays(struct h5file *file, const char *group, const struct params *params, bool state,
                                   real *vector) {
    for (int i = 0; i < params->count; ++i) {
        const struct param *p = params->list[i];
        char name[H5_MAX_NAME];
        if ((p->placement == PLACE_STATE) != state) continue;
        snprintf(name, sizeof name, "%s/%s", group, p->name);
        TRY(read_array(file, name, p, vector + p->offset));
    }
    return STATUS_OK;
}

/* The filled part of layer i's memory for one micro-batch's rows, packed [rows, length, d] or back. */
static void pack(const struct lm_memory *m, int64_t layer, const struct micro_batch *micro, real *packed, bool back) {
    for (int64_t b = 0; b < micro->rows; ++b) {
        real *row = m->data + (layer * m->rows + micro->local + b) * m->capacity * m->d_model;
        real *there = packed + b * m->length * m->d_model;
        size_t bytes = (size_t)(m->length * m->d_model) * sizeof *row;
        if (back)
            device->upload(row, there, bytes);
        else
            device->download(there, row, bytes);
    }
}

/* One global array per layer, [B, length, d] by global row; each micro-batch's rows are a hyperslab. */
static enum status transfer_memory(struct h5file *file, const char *group, const struct step *step, bool back) {
    const struct lm_memory *m = &step->memory;
    int64_t shape[] = {step->lm->config->train.batch, m->length, m->d_model};
    if (!m->length) return STATUS_OK;
    real *packed = malloc((size_t)(step->rows * m->length * m->d_model + 1) * sizeof *packed);
    if (!packed) FATAL("out of memory");
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < m->layers && !status; ++i) {
        char name[H5_MAX_NAME];
        snprintf(name, sizeof name, "%s/%lld", group, (long long)i);
        for (int64_t j = 0; j < step->accumulate && !status; ++j) {
            const struct micro_batch *micro = &step->micro[j];
            if (!back) pack(m, i, micro, packed, false);
            status = back ? h5file_read(file, name, real_type, 3, shape, micro->first, micro->rows, packed)
                          : h5file_write(file, name, real_type, 3, shape, micro->first, micro->rows, packed);
            if (back && !status) pack(m, i, micro, packed, true);
        }
    }
    free(packed);
    return status;
}

enum status checkpoint_write_memory(struct h5file *file, const char *group, const struct step *step) {
    return transfer_memory(file, group, step, false);
}

enum status checkpoint_read_memory(struct h5file *file, const char *group, struct step *step) {
    char name[H5_MAX_NAME];
    int rank;
    int64_t shape[H5_MAX_RANK];
    snprintf(name, sizeof name, "%s/0", group);
    TRY(h5file_shape(file, name, &rank, shape));
    step->memory.length = 0;
    if (rank < 0) return STATUS_OK;
    if (rank != 3 || shape[1] > step->memory.capacity)
        return status_fail(
            STATUS_CHECKPOINT, "%s: %s: expected memory of at most %lld positions (model.memory), found %lld",
            h5file_path(file), name, (long long)step->memory.capacity, rank == 3 ? (long long)shape[1] : -1);
    step->memory.length = shape[1];
    return transfer_memory(file, group, step, true);
}

static enum status write_all(struct h5file *file, struct step *step, struct diagnostics *diagnostics,
                             const struct text *text, const struct progress *progress) {
    const struct params *params = &step->lm->params;
    int64_t bytes[256], V = text->vocabulary;
    for (int64_t i = 0; i < V; ++i) bytes[i] = text->byte_of[i];
    char *json = config_to_json(step->lm->config);
    enum status status = h5file_write_text(file, "configuration", json);
    free(json);
    if (status) return status;
    TRY(h5file_write_int(file, "format_version", CHECKPOINT_VERSION));
    TRY(h5file_write_text(file, "written_by", "vqmoe, " REAL_NAME));
    TRY(h5file_write_text(file, "hdf5_version", h5file_library_version()));
    TRY(h5file_write_int(file, "ranks", step->lm->world->size));
    TRY(h5file_write_int(file, "seed", step->lm->config->run.seed));
    TRY(h5file_write_int(file, "step", progress->step));
    TRY(h5file_write_int(file, "epoch", progress->epoch));
    TRY(h5file_write_int(file, "segment", progress->segment));
    TRY(h5file_write_double(file, "best_valid", progress->best_valid));
    TRY(h5file_write(file, "/vocabulary", H5T_INT64, 1, &V, 0, step->lm->world->rank ? 0 : V, bytes));
    TRY(checkpoint_write_arrays(file, "/parameters", params, false, params->data));
    TRY(checkpoint_write_arrays(file, "/state", params, true, params->data));
    TRY(checkpoint_write_arrays(file, "/moments/first", params, false, params->m));
    TRY(checkpoint_write_arrays(file, "/moments/second", params, false, params->v));
    TRY(diagnostics_save(diagnostics, file));
    return checkpoint_write_memory(file, "/memory", step);
}

/* On one rank: the new name, and the folder's entry for it, on disk. */
static enum status publish(const char *temporary, const char *path) {
    char folder[1024];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash) *slash = '\0';
    if (rename(temporary, path))
        return status_fail(STATUS_WRITE, "%s: cannot rename to %s: %s", temporary, path, strerror(errno));
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = fd >= 0 && fsync(fd) == 0;
    int cause = errno;
    if (fd >= 0) close(fd);
    return good ? STATUS_OK : status_fail(STATUS_WRITE, "%s: cannot sync the folder: %s", folder, strerror(cause));
}

enum status checkpoint_write(const char *path, struct step *step, struct diagnostics *diagnostics,
                             const struct text *text, const struct progress *progress) {
    struct comm *world = step->lm->world;
    char temporary[1024];
    struct h5file *file = NULL;
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    enum status status = h5file_create(&file, temporary, comm_mpi_handle(world));
    if (!status) {
        status = write_all(file, step, diagnostics, text, progress);
        enum status closed = h5file_close(file);
        if (!status) status = closed;
    }
    status = comm_agree(world, status);
    if (world->rank == 0) {
        if (!status)
            status = publish(temporary, path);
        else
            unlink(temporary);
    }
    return comm_agree(world, status);
}

static enum status check_version(struct h5file *file, const char *path) {
    int64_t version;
    TRY(h5file_read_int(file, "format_version", &version));
    if (version == CHECKPOINT_VERSION) return STATUS_OK;
    return status_fail(STATUS_CHECKPOINT, "%s: format_version: expected %d, found %lld", path, CHECKPOINT_VERSION,
                       (long long)version);
}

static enum status read_vocabulary(struct h5file *file, const char *path, uint8_t *bytes, int64_t *V) {
    int rank;
    int64_t shape[H5_MAX_RANK] = {0}, values[256];
    TRY(h5file_shape(file, "/vocabulary", &rank, shape));
    if (rank != 1 || shape[0] < 1 || shape[0] > 256)
        return status_fail(STATUS_CHECKPOINT,
                           "%s: /vocabulary: expected 1 to 256 bytes, found an array of %d axes, %lld long", path, rank,
                           (long long)shape[0]);
    TRY(h5file_read(file, "/vocabulary", H5T_INT64, 1, shape, 0, shape[0], values));
    for (int64_t i = 0; i < shape[0]; ++i) {
        if (values[i] < 0 || values[i] > 255)
            return status_fail(STATUS_CHECKPOINT, "%s: /vocabulary[%lld]: expected a byte, found %lld", path,
                               (long long)i, (long long)values[i]);
        bytes[i] = (uint8_t)values[i];
    }
    *V = shape[0];
    return STATUS_OK;
}

static enum status check_vocabulary(struct h5file *file, const char *path, const struct text *text) {
    uint8_t bytes[256];
    int64_t V = 0;
    TRY(read_vocabulary(file, path, bytes, &V));
    if (V == text->vocabulary && !memcmp(bytes, text->byte_of, (size_t)V)) return STATUS_OK;
    return status_fail(STATUS_CHECKPOINT, "%s: /vocabulary: expected the %d bytes of %s, found %lld, or others", path,
                       text->vocabulary, text->splits[SPLIT_TRAIN].path, (long long)V);
}

/* What no shape tells apart: another norm, segment, text, ... */
static enum status check_configuration(struct h5file *file, const char *path, const struct config *config) {
    char *json = NULL;
    struct config written;
    TRY(h5file_read_text(file, "configuration", &json));
    enum status status = config_load_json(&written, json, path, NULL, 0);
    free(json);
    return status ? status : config_check_resumed(config, &written, path);
}

static enum status resume_all(struct h5file *file, const char *path, struct step *step, struct diagnostics *diagnostics,
                              const struct text *text, struct progress *progress) {
    struct params *params = &step->lm->params;
    TRY(check_version(file, path));
    TRY(check_vocabulary(file, path, text));
    TRY(check_configuration(file, path, step->lm->config)); /* says more than a missing array would */
    TRY(h5file_read_int(file, "step", &progress->step));
    TRY(h5file_read_int(file, "epoch", &progress->epoch));
    TRY(h5file_read_int(file, "segment", &progress->segment));
    TRY(h5file_read_double(file, "best_valid", &progress->best_valid));
    TRY(checkpoint_read_arrays(file, "/parameters", params, false, params->data));
    TRY(checkpoint_read_arrays(file, "/state", params, true, params->data));
    TRY(checkpoint_read_arrays(file, "/moments/first", params, false, params->m));
    TRY(checkpoint_read_arrays(file, "/moments/second", params, false, params->v));
    TRY(diagnostics_restore(diagnostics, file));
    return checkpoint_read_memory(file, "/memory", step);
}

enum status checkpoint_resume(const char *path, struct step *step, struct diagnostics *diagnostics,
                              const struct text *text, struct progress *progress) {
    struct h5file *file = NULL;
    enum status status = h5file_open(&file, path, comm_mpi_handle(step->lm->world));
    if (!status) status = resume_all(file, path, step, diagnostics, text, progress);
    h5file_close(file);
    return comm_agree(step->lm->world, status);
}

static enum status read_config(struct h5file *file, const char *path, struct config *config,
                               const char *const *overrides, int n_overrides, uint8_t *bytes, int64_t *V,
                               int64_t *step) {
    char *json = NULL;
    TRY(check_version(file, path));
    TRY(h5file_read_int(file, "step", step));
    TRY(read_vocabulary(file, path, bytes, V));
    TRY(h5file_read_text(file, "configuration", &json));
    /* How the writer was laid out is nothing to the reader. */
    const char *own[] = {"parallel.expert=auto", "parallel.threads=auto", "parallel.comm=auto",
                         "parallel.share_gpus=false", "device=auto"};
    enum { OWN = sizeof own / sizeof *own };
    const char **all = malloc((size_t)(OWN + n_overrides) * sizeof *all);
    if (!all) FATAL("out of memory");
    for (int i = 0; i < OWN + n_overrides; ++i) all[i] = i < OWN ? own[i] : overrides[i - OWN];
    enum status status = config_load_json(config, json, path, all, OWN + n_overrides);
    free(all);
    free(json);
    return status;
}

enum status checkpoint_read_config(const char *path, struct comm *world, struct config *config,
                                   const char *const *overrides, int n_overrides, uint8_t *bytes, int64_t *V,
                                   int64_t *step) {
    struct h5file *file = NULL;
    enum status status = h5file_open(&file, path, comm_mpi_handle(world));
    if (!status) status = read_config(file, path, config, overrides, n_overrides, bytes, V, step);
    h5file_close(file);
    return comm_agree(world, status);
}

enum status checkpoint_read_parameters(const char *path, struct lm *lm) {
    struct h5file *file = NULL;
    enum status status = h5file_open(&file, path, comm_mpi_handle(lm->world));
    if (!status) status = checkpoint_read_arrays(file, "/parameters", &lm->params, false, lm->params.data);
    if (!status) status = checkpoint_read_arrays(file, "/state", &lm->params, true, lm->params.data);
    h5file_close(file);
    return comm_agree(lm->world, status);
}

/* *fits: whether the file has the array in its very shape. */
static enum status find(struct h5file *file, const struct param *p, char *name, bool *fits) {
    int rank;
    int64_t shape[H5_MAX_RANK];
    snprintf(name, H5_MAX_NAME, "%s/%s", p->placement == PLACE_STATE ? "/state" : "/parameters", p->name);
    TRY(h5file_shape(file, name, &rank, shape));
    *fits = rank == p->rank && !memcmp(shape, p->shape, (size_t)rank * sizeof *shape);
    return STATUS_OK;
}

/* State goes together: half of a router's or quantizer's (counts without their sums, `fitted` without centroids) means
 * nothing. */
static enum status take(struct h5file *file, const struct params *params, const struct param *p, bool *taken) {
    char name[H5_MAX_NAME], other[H5_MAX_NAME];
    size_t owner = (size_t)(strrchr(p->name, '.') - p->name) + 1;
    TRY(find(file, p, name, taken));
    for (int i = 0; i < params->count && p->placement == PLACE_STATE && *taken; ++i)
        if (params->list[i]->placement == PLACE_STATE && !strncmp(params->list[i]->name, p->name, owner))
            TRY(find(file, params->list[i], other, taken));
    return *taken ? read_array(file, name, p, p->data) : STATUS_OK;
}

static enum status init_from(struct h5file *file, const char *path, struct lm *lm, const struct text *text) {
    const struct params *params = &lm->params;
    int taken = 0;
    TRY(check_version(file, path));
    TRY(check_vocabulary(file, path, text));
    for (int i = 0; i < params->count; ++i) {
        bool one = false;
        TRY(take(file, params, params->list[i], &one));
        taken += one;
        if (!one) log_info("%s: not taken, fresh: %s", path, params->list[i]->name);
    }
    log_info("%s: %d of %d arrays taken", path, taken, params->count);
    return taken ? STATUS_OK
                 : status_fail(STATUS_CHECKPOINT, "%s: expected arrays of this model's shapes, found none", path);
}

enum status checkpoint_init_from(const char *path, struct lm *lm, const struct text *text) {
    struct h5file *file = NULL;
    enum status status = h5file_open(&file, path, comm_mpi_handle(lm->world));
    if (!status) status = init_from(file, path, lm, text);
    h5file_close(file);
    return comm_agree(lm->world, status);
}
