/* A new run from other weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "train/checkpoint_private.h"

enum { ROWS = 1024 }; /* of a file's array read at once */

static const enum h5_type real_type = sizeof(real) == sizeof(double) ? H5T_FLOAT64 : H5T_FLOAT32;

/* Symbols of the file and ours. */
struct symbols {
    bool same_classes; /* of two classifiers; else true */
    bool same;
    int64_t V;        /* of the file */
    int32_t *becomes; /* [V] our symbol, -1: we have none */
    int64_t both;     /* symbols of both */
};

static void name_in_file(char *name, const struct param *p) {
    snprintf(name, H5_MAX_NAME, "%s/%s", p->placement == PLACE_STATE ? "/state" : "/parameters", p->name);
}

enum kind { BY_SYMBOL, BY_CLUSTER, OTHER };

/* Whether rows stand for symbols one by one, or by the clusters of adaptive softmax. */
static enum kind kind_of(const struct model *model, const struct param *p) {
    if (strstr(p->name, ".router.token_embedding")) return BY_SYMBOL;
    bool vocabulary = !strncmp(p->name, "embedding.", 10) || !strncmp(p->name, "softmax.", 8);
    return !vocabulary ? OTHER : model->config->model.softmax == SOFTMAX_ADAPTIVE ? BY_CLUSTER : BY_SYMBOL;
}

/* Whether the file has the array in its very shape; of what is by symbol the rows may be others. A classifier has a row
 * more than its vocabulary. */
static bool fits(const struct archive *archive, const struct model *model, const struct param *p,
                 const struct symbols *symbols) {
    char name[H5_MAX_NAME];
    name_in_file(name, p);
    const struct h5_array *found = archive_find(archive, name);
    if (!strncmp(p->name, "head.output.", 12) && !symbols->same_classes) return false;
    enum kind kind = kind_of(model, p);
    if (!found || found->rank != p->rank || (kind == BY_CLUSTER && !symbols->same)) return false;
    int axes = kind == BY_SYMBOL;
    if (kind == BY_SYMBOL && found->shape[0] != symbols->V && found->shape[0] != symbols->V + 1) return false;
    return !memcmp(found->shape + axes, p->shape + axes, (size_t)(p->rank - axes) * sizeof *p->shape);
}

/* The rows of symbols that both have, and that are held here, into values. */
static enum status take_rows(struct archive *archive, const char *name, const struct param *p,
                             const struct symbols *symbols, real *values) {
    int64_t shape[H5_MAX_RANK] = {archive_find(archive, name)->shape[0]}, row = 1;
    for (int axis = 1; axis < p->rank; ++axis) row *= shape[axis] = p->shape[axis];
    real *rows = malloc((size_t)(ROWS * row) * sizeof *rows);
    if (!rows) FATAL("out of memory");
    enum status status = STATUS_OK;
    for (int64_t first = 0; first < symbols->V && !status; first += ROWS) {
        int64_t count = symbols->V - first < ROWS ? symbols->V - first : ROWS;
        status = archive_read(archive, name, real_type, p->rank, shape, first, count, rows);
        for (int64_t i = 0; i < count && !status; ++i) {
            int64_t ours = symbols->becomes[first + i] - p->first;
            if (symbols->becomes[first + i] >= 0 && ours >= 0 && ours < p->count)
                memcpy(values + ours * row, rows + i * row, (size_t)row * sizeof *rows);
        }
    }
    free(rows);
    return status;
}

static enum status read_by_symbol(struct archive *archive, const char *name, const struct param *p,
                                  const struct symbols *symbols) {
    size_t bytes = (size_t)p->size * sizeof *p->data;
    real *values = device_edit(p->data, bytes);
    enum status status = take_rows(archive, name, p, symbols, values);
    device_edit_close(values, p->data, bytes);
    return status;
}

/* State goes together: half of a router's or quantizer's (counts without their sums, `fitted` without centroids) means
 * nothing. */
static enum status take(struct archive *archive, const struct model *model, const struct param *p,
                        const struct symbols *symbols, bool *taken) {
    const struct params *params = &model->params;
    char name[H5_MAX_NAME];
    size_t owner = (size_t)(strrchr(p->name, '.') - p->name) + 1;
    *taken = fits(archive, model, p, symbols);
    for (int i = 0; i < params->count && p->placement == PLACE_STATE && *taken; ++i)
        if (params->list[i]->placement == PLACE_STATE && !strncmp(params->list[i]->name, p->name, owner))
            *taken = fits(archive, model, params->list[i], symbols);
    name_in_file(name, p);
    if (!*taken) return STATUS_OK;
    bool plain = symbols->same && archive_find(archive, name)->shape[0] == p->shape[0];
    if (kind_of(model, p) == BY_SYMBOL && !plain) return read_by_symbol(archive, name, p, symbols);
    return checkpoint_read_array(archive, name, p, p->data);
}

/* What the file has and the model has no place for. */
static void tell_left(const struct archive *archive, const struct params *params) {
    const struct h5_contents *contents = archive_contents(archive);
    for (int i = 0; i < contents->n_arrays; ++i) {
        const char *name = contents->arrays[i].name;
        bool known = strncmp(name, "/parameters/", 12) != 0 && strncmp(name, "/state/", 7) != 0;
        for (int j = 0; j < params->count && !known; ++j) {
            char ours[H5_MAX_NAME];
            name_in_file(ours, params->list[j]);
            known = !strcmp(name, ours);
        }
        if (!known) log_info("%s: left, this model has none: %s", archive_path(archive), name);
    }
}

/* Which symbol of ours each of the file's is. */
static void match(struct symbols *symbols, const struct vocabulary *theirs, const struct vocabulary *ours) {
    symbols->V = theirs->size;
    symbols->same = vocabulary_same(theirs, ours);
    symbols->becomes = malloc((size_t)theirs->size * sizeof *symbols->becomes);
    if (!symbols->becomes) FATAL("out of memory");
    for (int64_t i = 0; i < theirs->size; ++i) {
        int64_t length;
        const char *symbol = vocabulary_symbol(theirs, i, &length);
        symbols->becomes[i] = theirs->bytes == ours->bytes ? vocabulary_find(ours, symbol, length) : -1;
        symbols->both += symbols->becomes[i] >= 0;
    }
}

static enum status match_symbols(struct archive *archive, const struct legend *legend, struct symbols *symbols) {
    const struct vocabulary *ours = legend->vocabulary;
    struct vocabulary theirs;
    TRY(checkpoint_vocabulary_of(archive, &theirs));
    match(symbols, &theirs, ours);
    symbols->same_classes = checkpoint_check_classes(archive, legend) == STATUS_OK;
    status_clear();
    if (!symbols->same)
        log_info(
            "%s: %lld %s, other than the %lld %s of the data: of what is by symbol the rows of the %lld that both have",
            archive_path(archive), (long long)theirs.size, theirs.bytes ? "bytes" : "words", (long long)ours->size,
            ours->bytes ? "bytes" : "words", (long long)symbols->both);
    vocabulary_free(&theirs);
    return STATUS_OK;
}

static enum status take_all(struct archive *archive, struct model *model, const struct symbols *symbols) {
    const struct params *params = &model->params;
    const char *path = archive_path(archive);
    int taken = 0;
    for (int i = 0; i < params->count; ++i) {
        bool one = false;
        TRY(take(archive, model, params->list[i], symbols, &one));
        taken += one;
        if (!one) log_info("%s: not taken, fresh: %s", path, params->list[i]->name);
    }
    tell_left(archive, params);
    log_info("%s: %d of %d arrays taken", path, taken, params->count);
    return taken ? STATUS_OK
                 : status_fail(STATUS_CHECKPOINT, "%s: expected arrays of this model's shapes, found none", path);
}

static enum status init_from(struct archive *archive, struct model *model, const struct legend *legend) {
    struct symbols symbols = {0};
    TRY(checkpoint_check_version(archive));
    TRY(match_symbols(archive, legend, &symbols));
    enum status status = take_all(archive, model, &symbols);
    free(symbols.becomes);
    return status;
}

enum status checkpoint_init_from(const char *path, struct model *model, const struct legend *legend) {
    struct archive *archive;
    TRY(archive_open(&archive, path, model->world));
    enum status status = init_from(archive, model, legend);
    archive_close(archive);
    return comm_agree(model->world, status);
}
