#include "train/checkpoint_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static const enum h5_type real_type = sizeof(real) == sizeof(double) ? H5T_FLOAT64 : H5T_FLOAT32;

/* ---- Parameters ---- */

/* Rows of many arrays as one sequence of bytes, of which a rank has the rows that begin in its part. */
struct turns {
    int64_t at, from, to;
};

static int64_t row_elements(const struct param *p) {
    int64_t elements = 1;
    for (int axis = 1; axis < p->rank; ++axis) elements *= p->shape[axis];
    return elements;
}

static struct turns turns_of(const struct comm *holders, int64_t elements) {
    if (!holders) return (struct turns){0, 0, elements};
    return (struct turns){0, elements * holders->rank / holders->size, elements * (holders->rank + 1) / holders->size};
}

/* Rows [*first, *first + *count) of those held here. */
static void take_turn(struct turns *turns, const struct param *p, int64_t *first, int64_t *count) {
    int64_t row = row_elements(p), edges[] = {turns->from, turns->to};
    for (int i = 0; i < 2; ++i) {
        int64_t before = edges[i] - turns->at, rows = before > 0 && row > 0 ? (before + row - 1) / row : 0;
        edges[i] = rows < p->count ? rows : p->count;
    }
    *first = edges[0];
    *count = edges[1] - edges[0];
    turns->at += p->count * row;
}

static void put_rows(struct snapshot *snapshot, const char *name, const struct param *p, const real *at,
                     struct turns *turns) {
    int64_t first, count, row = row_elements(p);
    take_turn(turns, p, &first, &count);
    void *place = snapshot_put(snapshot, name, real_type, p->rank, p->shape, p->first + first, count);
    if (count) device->download(place, at + first * row, (size_t)(count * row) * sizeof *at);
}

/* All ranks of the world hold it alike; of experts those that hold the same ones; NULL: this rank's rows are its own
 * alone. */
static const struct comm *holders_of(const struct model *model, enum placement placement) {
    if (placement == PLACE_VOCABULARY) return NULL;
    return placement == PLACE_EXPERT ? model->replicas : model->world;
}

void checkpoint_put_array(struct snapshot *snapshot, const char *name, const struct model *model, const struct param *p,
                          const real *at) {
    struct turns turns = turns_of(holders_of(model, p->placement), p->size);
    put_rows(snapshot, name, p, at, &turns);
}

void checkpoint_put_arrays(struct snapshot *snapshot, const char *group, const struct model *model, bool state,
                           const real *vector) {
    const struct params *params = &model->params;
    int64_t elements[PLACEMENTS] = {0};
    struct turns turns[PLACEMENTS];
    for (int i = 0; i < params->count; ++i)
        if ((params->list[i]->placement == PLACE_STATE) == state)
            elements[params->list[i]->placement] += params->list[i]->size;
    for (int i = 0; i < PLACEMENTS; ++i) turns[i] = turns_of(holders_of(model, (enum placement)i), elements[i]);
    for (int i = 0; i < params->count; ++i) {
        const struct param *p = params->list[i];
        char name[H5_MAX_NAME];
        if ((p->placement == PLACE_STATE) != state) continue;
        snprintf(name, sizeof name, "%s/%s", group, p->name);
        put_rows(snapshot, name, p, vector + p->offset, &turns[p->placement]);
    }
}

enum status checkpoint_read_array(struct archive *archive, const char *name, const struct param *p, real *at) {
    size_t bytes = (size_t)p->size * sizeof *at;
    real *values = device_edit(at, bytes);
    enum status status = archive_read(archive, name, real_type, p->rank, p->shape, p->first, p->count, values);
    device_edit_close(values, at, bytes);
    return status;
}

enum status checkpoint_read_arrays(struct archive *archive, const char *group, const struct params *params, bool state,
                                   real *vector) {
    for (int i = 0; i < params->count; ++i) {
        const struct param *p = params->list[i];
        char name[H5_MAX_NAME];
        if ((p->placement == PLACE_STATE) != state) continue;
        snprintf(name, sizeof name, "%s/%s", group, p->name);
        TRY(checkpoint_read_array(archive, name, p, vector + p->offset));
    }
    return STATUS_OK;
}

/* ---- Attention memory: one global array per layer, [B, length, d] by global row ---- */

/* The filled part of layer i's memory for one micro-batch's rows, packed [rows, length, d] or back. */
static void pack(const struct memory *m, int64_t layer, const struct micro_batch *micro, real *packed, bool back) {
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

void checkpoint_put_memory(struct snapshot *snapshot, const char *group, const struct step *step) {
    const struct memory *m = &step->memory;
    int64_t shape[] = {step->model->config->train.batch, m->length, m->d_model};
    for (int64_t i = 0; i < m->layers && m->length; ++i) {
        char name[H5_MAX_NAME];
        snprintf(name, sizeof name, "%s/%lld", group, (long long)i);
        for (int64_t j = 0; j < step->accumulate; ++j) {
            const struct micro_batch *micro = &step->micro[j];
            pack(m, i, micro, snapshot_put(snapshot, name, real_type, 3, shape, micro->first, micro->rows), false);
        }
    }
}

static enum status read_memory(struct archive *archive, const char *group, const struct step *step, real *packed) {
    const struct memory *m = &step->memory;
    int64_t shape[] = {step->model->config->train.batch, m->length, m->d_model};
    for (int64_t i = 0; i < m->layers; ++i) {
        char name[H5_MAX_NAME];
        snprintf(name, sizeof name, "%s/%lld", group, (long long)i);
        for (int64_t j = 0; j < step->accumulate; ++j) {
            const struct micro_batch *micro = &step->micro[j];
            TRY(archive_read(archive, name, real_type, 3, shape, micro->first, micro->rows, packed));
            pack(m, i, micro, packed, true);
        }
    }
    return STATUS_OK;
}

enum status checkpoint_read_memory(struct archive *archive, const char *group, struct step *step) {
    struct memory *m = &step->memory;
    char name[H5_MAX_NAME];
    snprintf(name, sizeof name, "%s/0", group);
    const struct h5_array *found = archive_find(archive, name);
    m->length = 0;
    if (!found) return STATUS_OK;
    if (found->rank != 3 || found->shape[1] > m->capacity)
        return status_fail(
            STATUS_CHECKPOINT, "%s: %s: expected memory of at most %lld positions (model.memory), found %lld",
            archive_path(archive), name, (long long)m->capacity, found->rank == 3 ? (long long)found->shape[1] : -1);
    m->length = found->shape[1];
    real *packed = malloc((size_t)(step->rows * m->length * m->d_model + 1) * sizeof *packed);
    if (!packed) FATAL("out of memory");
    enum status status = read_memory(archive, group, step, packed);
    free(packed);
    return status;
}

/* ---- The cursor of shuffled sentences: what is left of each row's, [B, 2] ---- */

static void put_cursor(struct snapshot *snapshot, const struct step *step, const struct progress *progress) {
    int64_t shape[] = {step->model->config->train.batch, 2}, mine = step->model->world->rank ? 0 : shape[0];
    if (!progress->rest) return;
    int64_t *rest = snapshot_put(snapshot, "/cursor", H5T_INT64, 2, shape, 0, mine);
    for (int64_t b = 0; b < mine; ++b) {
        rest[2 * b] = progress->rest[b].from;
        rest[2 * b + 1] = progress->rest[b].count;
    }
}

static enum status read_cursor(struct archive *archive, const struct step *step, struct progress *progress) {
    int64_t shape[] = {step->model->config->train.batch, 2};
    if (!progress->rest) return STATUS_OK;
    int64_t *rest = malloc((size_t)(shape[0] * 2) * sizeof *rest);
    if (!rest) FATAL("out of memory");
    enum status status = archive_read(archive, "/cursor", H5T_INT64, 2, shape, 0, shape[0], rest);
    for (int64_t b = 0; b < shape[0] && !status; ++b) progress->rest[b] = (struct rest){rest[2 * b], rest[2 * b + 1]};
    free(rest);
    return status;
}

/* ---- Writing ---- */

static void put_attributes(struct snapshot *snapshot, const struct step *step, const struct progress *progress) {
    char *json = config_to_json(step->model->config);
    snapshot_put_text(snapshot, "configuration", json);
    free(json);
    snapshot_put_int(snapshot, "format_version", CHECKPOINT_VERSION);
    snapshot_put_text(snapshot, "written_by", "vqmoe, " REAL_NAME);
    snapshot_put_text(snapshot, "hdf5_version", h5_library_version());
    snapshot_put_int(snapshot, "ranks", step->model->world->size);
    snapshot_put_int(snapshot, "seed", step->model->config->run.seed);
    snapshot_put_int(snapshot, "step", progress->step);
    snapshot_put_int(snapshot, "epoch", progress->epoch);
    snapshot_put_int(snapshot, "segment", progress->segment);
    snapshot_put_real(snapshot, "best_valid", progress->best_valid);
    snapshot_put_int(snapshot, "best_step", progress->best_step);
    snapshot_put_int(snapshot, "validated", progress->validated);
}

/* Bytes, or words each ended by a line feed; one rank's. */
static void put_vocabulary(struct snapshot *snapshot, const struct vocabulary *vocabulary, bool mine) {
    int64_t V = vocabulary->size, length = V;
    if (vocabulary->bytes) {
        int64_t *bytes = snapshot_put(snapshot, "/vocabulary", H5T_INT64, 1, &V, 0, mine ? V : 0);
        for (int64_t i = 0; i < V && mine; ++i) bytes[i] = vocabulary->byte_of[i];
        return;
    }
    length += vocabulary->offset[V];
    char *at = snapshot_put(snapshot, "/words", H5T_UINT8, 1, &length, 0, mine ? length : 0);
    for (int64_t i = 0, n; i < V && mine; ++i) {
        const char *word = vocabulary_symbol(vocabulary, i, &n);
        at = (char *)memcpy(at, word, (size_t)n) + n;
        *at++ = '\n';
    }
}

/* Names, each ended by a line feed; NULL: a language model has none. The caller frees it. */
static char *join_classes(const struct legend *legend) {
    char *text = NULL;
    size_t length = 0;
    if (!legend->n_classes) return NULL;
    FILE *out = open_memstream(&text, &length);
    if (!out) FATAL("out of memory");
    for (int64_t c = 0; c < legend->n_classes; ++c) fprintf(out, "%s\n", legend->classes[c]);
    fclose(out);
    return text;
}

static void put_classes(struct snapshot *snapshot, const struct legend *legend) {
    char *text = join_classes(legend);
    if (text) snapshot_put_text(snapshot, "classes", text);
    free(text);
}

void checkpoint_snapshot(struct snapshot *snapshot, struct step *step, struct diagnostics *diagnostics,
                         const struct legend *legend, const struct progress *progress) {
    const struct model *model = step->model;
    const struct params *params = &model->params;
    put_attributes(snapshot, step, progress);
    put_vocabulary(snapshot, legend->vocabulary, model->world->rank == 0);
    put_classes(snapshot, legend);
    if (legend->data) snapshot_put_int(snapshot, "data", (int64_t)legend->data);
    checkpoint_put_arrays(snapshot, "/parameters", model, false, params->data);
    checkpoint_put_arrays(snapshot, "/state", model, true, params->data);
    checkpoint_put_arrays(snapshot, "/moments/first", model, false, params->m);
    checkpoint_put_arrays(snapshot, "/moments/second", model, false, params->v);
    put_cursor(snapshot, step, progress);
    diagnostics_save(diagnostics, snapshot);
    checkpoint_put_memory(snapshot, "/memory", step);
}

enum status checkpoint_write(const char *path, struct step *step, struct diagnostics *diagnostics,
                             const struct legend *legend, const struct progress *progress) {
    struct snapshot *snapshot = snapshot_new(step->model->world);
    checkpoint_snapshot(snapshot, step, diagnostics, legend, progress);
    enum status status = snapshot_write(snapshot, path);
    snapshot_free(snapshot);
    return status;
}

/* ---- Reading ---- */

enum status checkpoint_check_version(struct archive *archive) {
    const char *path = archive_path(archive);
    int64_t version;
    TRY(archive_read_int(archive, "format_version", &version));
    if (version != CHECKPOINT_VERSION)
        return status_fail(STATUS_CHECKPOINT, "%s: expected format_version %d, found %lld: written by %s vqmoe", path,
                           CHECKPOINT_VERSION, (long long)version,
                           version > CHECKPOINT_VERSION ? "a newer" : "an older");
    if (archive_has_checksums(archive)) return STATUS_OK;
    return status_fail(STATUS_CHECKPOINT, "%s: /checksums: expected an array, found none", path);
}

static enum status read_words(struct archive *archive, const struct h5_array *found, struct vocabulary *vocabulary) {
    const char *path = archive_path(archive);
    char *words = found->rank == 1 ? malloc((size_t)found->shape[0] + 1) : NULL, name[H5_MAX_NAME + 512];
    if (!words)
        return status_fail(STATUS_CHECKPOINT, "%s: /words: expected words that fit memory, found %d axes, %lld bytes",
                           path, found->rank, (long long)found->bytes);
    snprintf(name, sizeof name, "%s: /words", path);
    enum status status = archive_read(archive, "/words", H5T_UINT8, 1, found->shape, 0, found->shape[0], words);
    if (!status && vocabulary_from_words(vocabulary, words, found->shape[0], name)) status = STATUS_CHECKPOINT;
    free(words);
    return status;
}

enum status checkpoint_vocabulary_of(struct archive *archive, struct vocabulary *vocabulary) {
    const struct h5_array *found = archive_find(archive, "/vocabulary"), *words = archive_find(archive, "/words");
    const char *path = archive_path(archive);
    int64_t values[256], last = -1;
    bool seen[256] = {false};
    if (words) return read_words(archive, words, vocabulary);
    if (!found || found->rank != 1 || found->shape[0] < 1 || found->shape[0] > 256)
        return status_fail(STATUS_CHECKPOINT,
                           "%s: /vocabulary: expected 1 to 256 bytes, found an array of %d axes, %lld long", path,
                           found ? found->rank : -1, found && found->rank ? (long long)found->shape[0] : 0);
    TRY(archive_read(archive, "/vocabulary", H5T_INT64, 1, found->shape, 0, found->shape[0], values));
    for (int64_t i = 0; i < found->shape[0]; last = values[i++]) {
        if (values[i] <= last || values[i] > 255)
            return status_fail(STATUS_CHECKPOINT, "%s: /vocabulary[%lld]: expected a byte above %lld, found %lld", path,
                               (long long)i, (long long)last, (long long)values[i]);
        seen[values[i]] = true;
    }
    vocabulary_from_bytes(vocabulary, seen);
    return STATUS_OK;
}

static enum status check_vocabulary(struct archive *archive, const struct vocabulary *ours) {
    struct vocabulary theirs = {0};
    enum status status = checkpoint_vocabulary_of(archive, &theirs);
    if (!status && !vocabulary_same(&theirs, ours))
        status = status_fail(STATUS_CHECKPOINT, "%s: /%s: expected the %lld %s of the data, found %lld %s, or others",
                             archive_path(archive), theirs.bytes ? "vocabulary" : "words", (long long)ours->size,
                             ours->bytes ? "bytes" : "words", (long long)theirs.size, theirs.bytes ? "bytes" : "words");
    vocabulary_free(&theirs);
    return status;
}

enum status checkpoint_check_classes(struct archive *archive, const struct legend *legend) {
    char *ours = join_classes(legend);
    const char *theirs;
    if (!ours) return STATUS_OK;
    enum status status = archive_read_text(archive, "classes", &theirs);
    if (!status && strcmp(ours, theirs) != 0)
        status = status_fail(STATUS_CHECKPOINT, "%s: classes: expected the %lld of the training data, found others",
                             archive_path(archive), (long long)legend->n_classes);
    free(ours);
    return status;
}

/* A cursor means nothing in other prepared data. */
static enum status check_data(struct archive *archive, const struct legend *legend) {
    int64_t theirs;
    if (!legend->data) return STATUS_OK;
    TRY(archive_read_int(archive, "data", &theirs));
    if (theirs == (int64_t)legend->data) return STATUS_OK;
    return status_fail(
        STATUS_CHECKPOINT,
        "%s: data: expected checksum %016llx of the parts in data.prepared, found %016llx: a run goes on "
        "with the data it began with",
        archive_path(archive), (unsigned long long)legend->data, (unsigned long long)theirs);
}

/* What no shape tells apart: another norm, segment, text, ... */
static enum status check_configuration(struct archive *archive, const struct config *config) {
    const char *json;
    struct config written;
    TRY(archive_read_text(archive, "configuration", &json));
    TRY(config_load_json(&written, json, archive_path(archive), NULL, 0));
    return config_check_resumed(config, &written, archive_path(archive));
}

static enum status read_progress(struct archive *archive, struct progress *progress) {
    int64_t validated;
    TRY(archive_read_int(archive, "step", &progress->step));
    TRY(archive_read_int(archive, "epoch", &progress->epoch));
    TRY(archive_read_int(archive, "segment", &progress->segment));
    TRY(archive_read_real(archive, "best_valid", &progress->best_valid));
    TRY(archive_read_int(archive, "best_step", &progress->best_step));
    TRY(archive_read_int(archive, "validated", &validated));
    progress->validated = validated != 0;
    return STATUS_OK;
}

static enum status resume(struct archive *archive, struct step *step, struct diagnostics *diagnostics,
                          const struct legend *legend, struct progress *progress) {
    struct params *params = &step->model->params;
    TRY(checkpoint_check_version(archive));
    TRY(check_vocabulary(archive, legend->vocabulary));
    TRY(checkpoint_check_classes(archive, legend));
    TRY(check_data(archive, legend));
    TRY(check_configuration(archive, step->model->config)); /* says more than a missing array would */
    TRY(read_progress(archive, progress));
    TRY(read_cursor(archive, step, progress));
    TRY(checkpoint_read_arrays(archive, "/parameters", params, false, params->data));
    TRY(checkpoint_read_arrays(archive, "/state", params, true, params->data));
    TRY(checkpoint_read_arrays(archive, "/moments/first", params, false, params->m));
    TRY(checkpoint_read_arrays(archive, "/moments/second", params, false, params->v));
    TRY(diagnostics_restore(diagnostics, archive));
    return checkpoint_read_memory(archive, "/memory", step);
}

enum status checkpoint_resume(const char *path, struct step *step, struct diagnostics *diagnostics,
                              const struct legend *legend, struct progress *progress) {
    struct archive *archive;
    TRY(archive_open(&archive, path, step->model->world));
    enum status status = resume(archive, step, diagnostics, legend, progress);
    archive_close(archive);
    return comm_agree(step->model->world, status);
}

static enum status read_config(struct archive *archive, struct config *config, const char *const *overrides,
                               int n_overrides, struct vocabulary *vocabulary, int64_t *step) {
    const char *json;
    TRY(checkpoint_check_version(archive));
    TRY(archive_read_int(archive, "step", step));
    TRY(checkpoint_vocabulary_of(archive, vocabulary));
    TRY(archive_read_text(archive, "configuration", &json));
    /* How the writer was laid out is nothing to the reader. */
    const char *own[] = {"parallel.expert=auto",      "parallel.threads=auto",     "parallel.comm=auto",
                         "parallel.share_gpus=false", "parallel.vocabulary=false", "device=auto"};
    enum { OWN = sizeof own / sizeof *own };
    const char **all = malloc((size_t)(OWN + n_overrides) * sizeof *all);
    if (!all) FATAL("out of memory");
    for (int i = 0; i < OWN + n_overrides; ++i) all[i] = i < OWN ? own[i] : overrides[i - OWN];
    enum status status = config_load_json(config, json, archive_path(archive), all, OWN + n_overrides);
    free(all);
    return status;
}

enum status checkpoint_read_config(const char *path, struct comm *world, struct config *config,
                                   const char *const *overrides, int n_overrides, struct vocabulary *vocabulary,
                                   int64_t *step) {
    struct archive *archive;
    *vocabulary = (struct vocabulary){0};
    TRY(archive_open(&archive, path, world));
    enum status status = read_config(archive, config, overrides, n_overrides, vocabulary, step);
    archive_close(archive);
    return comm_agree(world, status);
}

enum status checkpoint_read_vocabulary(const char *path, struct comm *world, struct vocabulary *vocabulary) {
    struct archive *archive;
    *vocabulary = (struct vocabulary){0};
    TRY(archive_open(&archive, path, world));
    enum status status = checkpoint_check_version(archive);
    if (!status) status = checkpoint_vocabulary_of(archive, vocabulary);
    archive_close(archive);
    return comm_agree(world, status);
}

/* A copy, the caller's. */
static enum status read_text(const char *path, struct comm *world, const char *name, char **text) {
    struct archive *archive;
    const char *found;
    *text = NULL;
    TRY(archive_open(&archive, path, world));
    enum status status = checkpoint_check_version(archive);
    if (!status) status = archive_read_text(archive, name, &found);
    if (!status && !(*text = strdup(found))) FATAL("out of memory");
    archive_close(archive);
    return comm_agree(world, status);
}

enum status checkpoint_read_json(const char *path, struct comm *world, char **json) {
    return read_text(path, world, "configuration", json);
}

enum status checkpoint_read_classes(const char *path, struct comm *world, char **names, char ***classes,
                                    int64_t *n_classes) {
    TRY(read_text(path, world, "classes", names));
    *n_classes = 0;
    for (char *at = *names; (at = strchr(at, '\n')); ++at) ++*n_classes;
    *classes = malloc((size_t)(*n_classes + 1) * sizeof **classes);
    if (!*classes) FATAL("out of memory");
    char *at = *names;
    for (int64_t c = 0; c < *n_classes; ++c, ++at) {
        (*classes)[c] = at;
        at = strchr(at, '\n');
        *at = '\0';
    }
    return STATUS_OK;
}

enum status checkpoint_read_parameters(const char *path, struct model *model) {
    struct archive *archive;
    TRY(archive_open(&archive, path, model->world));
    enum status status = checkpoint_read_arrays(archive, "/parameters", &model->params, false, model->params.data);
    if (!status) status = checkpoint_read_arrays(archive, "/state", &model->params, true, model->params.data);
    archive_close(archive);
    return comm_agree(model->world, status);
}
