#include "cli/routing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "cli/loaded.h"
#include "train/collapse.h"
#include "train/diagnostics.h"

/* ---- A run folder ---- */

enum { EXPERTS, CODES, LOAD, USAGE, EXPERT_SAMPLE, ROUTER_SAMPLE, CODE_SAMPLE, TABLES };
static const char *const table_names[TABLES] = {"/experts",        "/codes",         "/load",        "/usage",
                                                "/sample/experts", "/sample/router", "/sample/codes"};

/* A table of a side file, [layers, columns]; columns 0: not there. */
struct table {
    int64_t columns;
    double *data;
};

/* One side file. */
struct look {
    int64_t step, layers;
    struct table tables[TABLES];
};

static void look_free(struct look *look) {
    for (int i = 0; i < TABLES; ++i) free(look->tables[i].data);
    *look = (struct look){0};
}

static enum status read_table(struct archive *archive, const char *name, int64_t layers, struct table *table) {
    const struct h5_array *found = archive_find(archive, name);
    int64_t *whole = NULL;
    if (!found) return STATUS_OK;
    if (found->rank != 2 || found->shape[0] != layers)
        return status_fail(STATUS_CHECKPOINT, "%s: %s: expected a table of %lld layers, found %d axes, the first %lld",
                           archive_path(archive), name, (long long)layers, found->rank,
                           found->rank ? (long long)found->shape[0] : 0);
    int64_t size = found->shape[0] * found->shape[1];
    double *data = malloc((size_t)(size + 1) * sizeof *data);
    bool choices = name == table_names[EXPERTS] || name == table_names[CODES];
    if (choices) whole = malloc((size_t)(size + 1) * sizeof *whole);
    if (!data || (choices && !whole)) FATAL("out of memory");
    enum status status = archive_read(archive, name, choices ? H5T_INT64 : H5T_FLOAT64, 2, found->shape, 0, layers,
                                      choices ? (void *)whole : (void *)data);
    for (int64_t i = 0; i < size && choices && !status; ++i) data[i] = (double)whole[i];
    free(whole);
    *table = (struct table){found->shape[1], data};
    return status;
}

static enum status read_look(struct look *look, const char *folder, int64_t step) {
    char path[1024];
    struct archive *archive;
    *look = (struct look){0};
    snprintf(path, sizeof path, "%s/routing/%lld.h5", folder, (long long)step);
    TRY(archive_open(&archive, path, NULL));
    enum status status = archive_read_int(archive, "step", &look->step);
    if (!status) status = archive_read_int(archive, "layers", &look->layers);
    for (int i = 0; i < TABLES && !status; ++i)
        status = read_table(archive, table_names[i], look->layers, &look->tables[i]);
    archive_close(archive);
    if (status) look_free(look);
    return status;
}

/* The layer's row of a table, of both looks; false where they have none of the same shape. */
static bool rows_of(const struct look *a, const struct look *b, int table, int64_t layer, const double **row_a,
                    const double **row_b) {
    int64_t columns = a->tables[table].columns;
    if (!columns || b->tables[table].columns != columns || layer >= b->layers) return false;
    *row_a = a->tables[table].data + layer * columns;
    *row_b = b->tables[table].data + layer * columns;
    return true;
}

/* Fraction of the probe's choices that differ; NAN where there are none. */
static double changed(const struct look *a, const struct look *b, int table, int64_t layer) {
    const double *now, *then;
    double count = 0;
    if (!rows_of(a, b, table, layer, &now, &then)) return NAN;
    for (int64_t i = 0; i < a->tables[table].columns; ++i) count += now[i] != then[i];
    return count / (double)a->tables[table].columns;
}

/* |now - end| / |end| of the sampled elements. */
static double distance(const struct look *look, const struct look *end, int table, int64_t layer) {
    const double *a, *b;
    double difference = 0, norm = 0;
    if (!rows_of(look, end, table, layer, &a, &b)) return NAN;
    for (int64_t i = 0; i < look->tables[table].columns; ++i) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return norm > 0 ? sqrt(difference / norm) : NAN;
}

/* Appends, right-aligned; "-" for NAN. format: of a width and a double. */
static void put(char *line, size_t size, const char *format, int width, double value) {
    size_t at = strlen(line);
    if (isnan(value))
        snprintf(line + at, size - at, "%*s", width, "-");
    else
        snprintf(line + at, size - at, format, width, value);
}

static void print_layer(const struct look *look, const struct look *before, const struct look *end, int64_t layer) {
    const struct table *usage = &look->tables[USAGE], *load = &look->tables[LOAD];
    const double *codes = usage->data + layer * usage->columns, *rows = load->data + layer * load->columns;
    const struct {
        const char *format;
        int width;
        double value;
    } columns[] = {
        {"%*.4f", 9, before ? changed(look, before, EXPERTS, layer) : NAN},
        {"%*.4f", 8, before ? changed(look, before, CODES, layer) : NAN},
        {"%*.4f", 9, changed(look, end, EXPERTS, layer)},
        {"%*.4f", 8, changed(look, end, CODES, layer)},
        {"%*.4f", 8, distance(look, end, EXPERT_SAMPLE, layer)},
        {"%*.4f", 8, distance(look, end, ROUTER_SAMPLE, layer)},
        {"%*.4f", 8, distance(look, end, CODE_SAMPLE, layer)},
        {"%*.2f", 8, usage->columns ? collapse_perplexity(codes, usage->columns) : NAN},
        {"%*.0f", 6, usage->columns ? collapse_dead(codes, usage->columns) : NAN},
        {"%*.2f", 7, load->columns ? collapse_most(rows, load->columns) : NAN},
        {"%*.2f", 7, load->columns ? collapse_variation(rows, load->columns) : NAN},
    };
    char line[256];
    snprintf(line, sizeof line, "%9lld %5lld", (long long)look->step, (long long)layer);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; ++i)
        put(line, sizeof line, columns[i].format, columns[i].width, columns[i].value);
    log_info("%s", line);
}

/* Mean over layers. */
static double mean_distance(const struct look *look, const struct look *end, int table) {
    double sum = 0;
    for (int64_t layer = 0; layer < look->layers; ++layer) sum += distance(look, end, table, layer);
    return sum / (double)look->layers;
}

/* What came half its way first: steps from which on the distance is at most half of the first one. */
static void print_halves(const double (*distances)[3], const int64_t *steps, int64_t count) {
    static const char *const names[] = {"expert weights", "router", "codes"};
    char line[256] = "";
    for (int part = 0; part < 3; ++part) {
        int64_t from = count - 1;
        if (!(distances[0][part] > 0)) continue;
        while (from > 0 && distances[from - 1][part] <= distances[0][part] / 2) --from;
        snprintf(line + strlen(line), sizeof line - strlen(line), "%s %s from step %lld on", *line ? "," : "",
                 names[part], (long long)steps[from]);
    }
    if (*line) log_info("at most half of the first distance (mean over layers):%s", line);
}

static enum status print_folder(const char *folder, const int64_t *steps, int64_t count) {
    struct look end, before = {0}, look;
    TRY(read_look(&end, folder, steps[count - 1]));
    double(*distances)[3] = calloc((size_t)count, sizeof *distances);
    if (!distances) FATAL("out of memory");
    log_info("%15s%17s%17s%24s%14s%14s", "", "changed since", "changed against", "distance to the last", "codes in use",
             "load");
    log_info("%9s %5s%9s%8s%9s%8s%8s%8s%8s%8s%6s%7s%7s", "step", "layer", "experts", "codes", "experts", "codes",
             "experts", "router", "codes", "perpl.", "dead", "max", "cv");
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < count && !status; ++i) {
        if ((status = read_look(&look, folder, steps[i]))) break;
        for (int64_t layer = 0; layer < look.layers; ++layer) print_layer(&look, i ? &before : NULL, &end, layer);
        for (int part = 0; part < 3; ++part) distances[i][part] = mean_distance(&look, &end, EXPERT_SAMPLE + part);
        look_free(&before);
        before = look;
    }
    if (!status) print_halves((const double(*)[3])distances, steps, count);
    free(distances);
    look_free(&before);
    look_free(&end);
    return status;
}

static enum status inspect_folder(const char *folder) {
    int64_t *steps, count = diagnostics_files(folder, &steps);
    enum status status =
        count ? print_folder(folder, steps, count)
              : status_fail(STATUS_CHECKPOINT,
                            "%s: expected routing/STEP.h5, found none: diagnostics.every, the steps between two of "
                            "them, is to be set (not 0) in training",
                            folder);
    free(steps);
    return status;
}

/* ---- A checkpoint ---- */

static void print_measures(const struct diagnostics *d, const struct loaded *loaded) {
    log_info("after step %lld, %lld tokens of %s (%lld rows of %lld); codes in use and loads are of these tokens",
             (long long)loaded->step, (long long)d->tokens, split_names[d->split], (long long)d->rows,
             (long long)loaded->config.model.segment);
    for (int i = EFFECTIVE_RANK; i < MEASURES; ++i) {
        char line[4096];
        snprintf(line, sizeof line, "%-16s", measure_names[i]);
        for (int64_t layer = 0; layer < loaded->model.layers; ++layer)
            put(line, sizeof line, "%*.6g", 12, d->measures[layer * MEASURES + i]);
        log_info("%s", line);
    }
}

static enum status inspect_checkpoint(const struct arguments *arguments, struct comm *world) {
    struct loaded loaded;
    struct diagnostics d = {0};
    struct pass_memory arenas = {0};
    enum status status = loaded_open(&loaded, arguments, world);
    if (!status) status = comm_agree(world, diagnostics_init(&d, &loaded.model, &loaded.text));
    if (!status) {
        diagnostics_look(&d, &arenas, loaded.step, true);
        print_measures(&d, &loaded);
    }
    diagnostics_free(&d);
    pass_memory_free(&arenas);
    loaded_free(&loaded);
    return status;
}

enum status routing_inspect(const struct arguments *arguments, struct comm *world) {
    struct stat info;
    const char *path = arguments->files[0];
    int64_t folder = world->rank == 0 && stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    comm_broadcast(world, &folder, sizeof folder, 0);
    if (!folder) return inspect_checkpoint(arguments, world);
    return comm_agree(world, world->rank ? STATUS_OK : inspect_folder(path));
}
