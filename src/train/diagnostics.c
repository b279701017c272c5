#include "train/diagnostics.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/block.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "train/collapse.h"

enum { SAMPLE = 4096 }; /* elements of a parameter in a side file, at most */

static const enum h5_type real_type = sizeof(real) == sizeof(double) ? H5T_FLOAT64 : H5T_FLOAT32;

const char *const measure_names[MEASURES] = {
    [CHANGED_EXPERTS] = "changed_experts",
    [CHANGED_CODES] = "changed_codes",
    [EFFECTIVE_RANK] = "effective_rank",
    [RANK_WITHIN] = "rank_within",
    [COSINE_WITHIN] = "cosine_within",
    [COSINE_BETWEEN] = "cosine_between",
    [VARIANCE_RATIO] = "variance_ratio",
    [CODE_PERPLEXITY] = "code_perplexity",
    [DEAD_CODES] = "dead_codes",
    [CODE_TOKEN_BITS] = "code_token_bits",
    [LOAD_MAX] = "load_max",
    [LOAD_CV] = "load_cv",
    [RANK_LOAD_MAX] = "rank_load_max",
};

static void *zeros(int64_t count, size_t size) {
    void *memory = calloc((size_t)(count ? count : 1), size);
    if (!memory) FATAL("out of memory");
    return memory;
}

static void add(double *sum, const double *more, int64_t n) {
    for (int64_t i = 0; i < n; ++i) sum[i] += more[i];
}

/* ---- The probe ---- */

static enum status read_probe(struct diagnostics *d, const struct text *text) {
    const struct config *config = d->model->config;
    int64_t T = config->model.segment, asked = (config->diagnostics.tokens + T - 1) / T;
    d->split = text->splits[SPLIT_VALID].symbols >= T ? SPLIT_VALID : SPLIT_TRAIN;
    int64_t there = text->splits[d->split].symbols / T;
    if (!there)
        return status_fail(STATUS_DATA, "%s: too short for a probe: expected at least %lld symbols, found %lld",
                           text->splits[d->split].path, (long long)T, (long long)text->splits[d->split].symbols);
    d->rows = asked < there ? asked : there;
    d->tokens = d->rows * T;
    d->symbols = zeros(d->tokens, sizeof *d->symbols);
    int32_t *symbols = zeros(T, sizeof *symbols);
    enum status status = STATUS_OK;
    for (int64_t row = 0; row < d->rows && !status; ++row) {
        status = text_read(text, d->split, row * T, T, symbols);
        for (int64_t t = 0; t < T; ++t) d->symbols[row * T + t] = symbols[t];
    }
    free(symbols);
    return status;
}

enum status diagnostics_init(struct diagnostics *d, struct model *model, const struct text *text) {
    const struct moe *moe = &model->blocks[0].moe;
    int64_t layers = model->layers, ranks = model->group->size;
    *d = (struct diagnostics){.model = model,
                              .codes = moe->mode == MOE_CONTINUOUS ? 0 : moe->quantizer.M,
                              .routes = moe->mode != MOE_DISCRETE && model->E > 0};
    enum status status = read_probe(d, text);
    if (status) return status;
    int64_t **choices[] = {&d->experts, &d->chosen, &d->last_experts, &d->last_chosen};
    for (size_t i = 0; i < sizeof choices / sizeof *choices; ++i)
        *choices[i] = zeros(layers * d->tokens, sizeof **choices[i]);
    d->measures = zeros(layers * MEASURES, sizeof *d->measures);
    d->dropped = zeros(layers * 2, sizeof *d->dropped);
    d->load = zeros(layers * model->E, sizeof *d->load);
    d->usage = zeros(layers * d->codes, sizeof *d->usage);
    d->sent = zeros(ranks, sizeof *d->sent);
    d->sent_before = zeros(ranks, sizeof *d->sent_before);
    return STATUS_OK;
}

void diagnostics_free(struct diagnostics *d) {
    free(d->symbols);
    free(d->experts);
    free(d->chosen);
    free(d->last_experts);
    free(d->last_chosen);
    free(d->measures);
    free(d->dropped);
    free(d->load);
    free(d->usage);
    free(d->sent);
    free(d->sent_before);
    *d = (struct diagnostics){0};
}

/* ---- Training ---- */

void diagnostics_before_step(struct diagnostics *d) {
    if (!d->model) return;
    const struct comm *group = d->model->group;
    for (int p = 0; p < group->size; ++p) d->sent_before[p] = group->sent ? group->sent[p] : 0;
}

void diagnostics_after_step(struct diagnostics *d, const struct step *step) {
    if (!d->model) return;
    const struct comm *group = d->model->group;
    int64_t layers = d->model->layers;
    for (int p = 0; p < group->size; ++p) d->sent[p] += (group->sent ? group->sent[p] : 0) - d->sent_before[p];
    add(d->dropped, step->stats.dropped, layers * 2);
    add(d->load, step->stats.load, layers * d->model->E);
    add(d->usage, step->stats.usage, layers * d->codes);
    d->steps++;
}

static void begin_interval(struct diagnostics *d) {
    int64_t layers = d->model->layers;
    memset(d->dropped, 0, (size_t)(layers * 2) * sizeof *d->dropped);
    memset(d->load, 0, (size_t)(layers * d->model->E) * sizeof *d->load);
    memset(d->usage, 0, (size_t)(layers * d->codes) * sizeof *d->usage);
    memset(d->sent, 0, (size_t)d->model->group->size * sizeof *d->sent);
    d->steps = 0;
}

/* [ranks of the group, ranks of the group]: from whom, to whom, groups added up; the caller frees it. */
static int64_t *sent_matrix(const struct diagnostics *d) {
    int64_t ranks = d->model->group->size, *matrix = zeros(ranks * ranks, sizeof *matrix);
    memcpy(matrix + d->model->group->rank * ranks, d->sent, (size_t)ranks * sizeof *matrix);
    comm_allreduce(d->model->world, matrix, ranks * ranks, COMM_INT64, COMM_SUM);
    return matrix;
}

static double sent_between(const int64_t *matrix, int64_t ranks) {
    double sum = 0;
    for (int64_t i = 0; i < ranks * ranks; ++i)
        if (i / ranks != i % ranks) sum += (double)matrix[i];
    return sum;
}

/* ---- A look ---- */

/* Layer i's measures are the business of rank i mod size. */
static bool is_mine(const struct diagnostics *d, int64_t layer) {
    return layer % d->model->world->size == d->model->world->rank;
}

static void count_probe(struct diagnostics *d, const struct pass *pass) {
    uint64_t hash = 0;
    int64_t layers = d->model->layers, E = d->model->E;
    begin_interval(d);
    for (int64_t i = 0; i < layers; ++i)
        moe_count(&d->model->blocks[i].moe, pass, d->load + i * E, d->usage + i * d->codes, d->dropped + 2 * i, &hash);
    comm_allreduce(d->model->world, d->load, layers * E, COMM_DOUBLE, COMM_SUM);
    comm_allreduce(d->model->world, d->usage, layers * d->codes, COMM_DOUBLE, COMM_SUM);
    comm_allreduce(d->model->world, d->dropped, layers * 2, COMM_DOUBLE, COMM_SUM);
}

static void gather_choices(struct diagnostics *d, const struct pass *pass) {
    int64_t layers = d->model->layers, first = pass_token_first(pass);
    memset(d->experts, 0, (size_t)(layers * d->tokens) * sizeof *d->experts);
    memset(d->chosen, 0, (size_t)(layers * d->tokens) * sizeof *d->chosen);
    for (int64_t i = 0; i < layers; ++i) {
        const struct moe *moe = &d->model->blocks[i].moe;
        int64_t *experts = d->experts + i * d->tokens + first, *chosen = d->chosen + i * d->tokens + first;
        for (int64_t n = 0; n < pass->tokens; ++n) {
            if (d->routes) experts[n] = moe->router.seen[n * moe->router.K];
            if (d->codes) chosen[n] = moe->quantizer.seen[n];
        }
    }
    comm_allreduce(d->model->world, d->experts, layers * d->tokens, COMM_INT64, COMM_SUM);
    comm_allreduce(d->model->world, d->chosen, layers * d->tokens, COMM_INT64, COMM_SUM);
}

/* The MoE layers' inputs [tokens, d] of my layers, one after the other; the caller frees it. */
static real *gather_inputs(const struct diagnostics *d, const struct pass *pass) {
    const struct model *model = d->model;
    int64_t size = d->tokens * model->d_model,
            mine = block_count(model->layers, model->world->size, model->world->rank), at = 0;
    real *inputs = zeros((mine + 1) * size, sizeof *inputs); /* one more: for the layers of others */
    for (int64_t i = 0; i < model->layers; ++i) {
        real *x = inputs + (is_mine(d, i) ? at++ : mine) * size;
        memset(x, 0, (size_t)size * sizeof *x);
        device->download(x + pass_token_first(pass) * model->d_model, model->blocks[i].moe.x,
                         (size_t)(pass->tokens * model->d_model) * sizeof *x);
        comm_allreduce(model->world, x, size, COMM_REAL, COMM_SUM);
    }
    return inputs;
}

static void measure_inputs(const struct diagnostics *d, int64_t layer, const real *x, double *to) {
    int64_t E = d->model->E, N = d->tokens, *labels = zeros(N, sizeof *labels);
    for (int64_t n = 0; n < N && E; ++n)
        labels[n] = d->routes ? d->experts[layer * N + n] : d->chosen[layer * N + n] % E;
    struct collapse collapse = collapse_of(x, labels, N, d->model->d_model, E ? E : 1);
    to[EFFECTIVE_RANK] = collapse.effective_rank;
    to[RANK_WITHIN] = collapse.rank_within;
    to[COSINE_WITHIN] = collapse.cosine_within;
    to[COSINE_BETWEEN] = collapse.cosine_between;
    to[VARIANCE_RATIO] = collapse.variance_ratio;
    free(labels);
}

/* Rows by rank of the group: the most over the mean. */
static double rank_load_max(const struct diagnostics *d, const double *load) {
    int64_t ranks = d->model->group->size, E = d->model->E;
    double *rows = zeros(ranks, sizeof *rows);
    for (int64_t r = 0; r < ranks; ++r)
        for (int64_t e = 0; e < block_count(E, ranks, r); ++e) rows[r] += load[block_first(E, ranks, r) + e];
    double most = collapse_most(rows, ranks);
    free(rows);
    return most;
}

static void measure(const struct diagnostics *d, int64_t layer, const real *x, double *to) {
    int64_t E = d->model->E, N = d->tokens, at = layer * N;
    const double *load = d->load + layer * E, *usage = d->usage + layer * d->codes;
    for (int i = 0; i < MEASURES; ++i) to[i] = NAN;
    measure_inputs(d, layer, x, to);
    if (d->has_last && d->routes) to[CHANGED_EXPERTS] = collapse_changed(d->experts + at, d->last_experts + at, N);
    if (d->has_last && d->codes) to[CHANGED_CODES] = collapse_changed(d->chosen + at, d->last_chosen + at, N);
    if (d->codes) {
        to[CODE_PERPLEXITY] = collapse_perplexity(usage, d->codes);
        to[DEAD_CODES] = collapse_dead(usage, d->codes);
        to[CODE_TOKEN_BITS] = collapse_shared_bits(d->chosen + at, d->codes, d->symbols, d->model->V, N);
    }
    if (!E) return;
    to[LOAD_MAX] = collapse_most(load, E);
    to[LOAD_CV] = collapse_variation(load, E);
    to[RANK_LOAD_MAX] = rank_load_max(d, load);
}

/* Leaves the pass in the arena. */
void diagnostics_look(struct diagnostics *d, struct pass_memory *arenas, int64_t updates, bool of_probe) {
    struct model *model = d->model;
    int64_t T = model->config->model.segment, first = block_first(d->rows, model->world->size, model->world->rank),
            rows = block_count(d->rows, model->world->size, model->world->rank);
    pass_memory_reset(arenas);
    int32_t *ids = ARENA_ARRAY(&arenas->host, int32_t, rows * T);
    for (int64_t n = 0; n < rows * T; ++n) ids[n] = (int32_t)d->symbols[first * T + n];
    struct pass pass = {.arena = &arenas->here,
                        .host = &arenas->host,
                        .step = updates,
                        .rows = rows,
                        .row_first = first,
                        .positions = T,
                        .tokens = rows * T,
                        .tokens_micro = d->tokens,
                        .tokens_global = d->tokens};
    pass.ids_host = ids;
    pass.ids = pass_upload(&pass, ids, pass.tokens);
    model_forward(model, &pass, NULL, NULL, 0, NULL);
    device_finish_all(); /* the choices are there to see */
    gather_choices(d, &pass);
    if (of_probe) count_probe(d, &pass);
    real *inputs = gather_inputs(d, &pass), *x = inputs;
    memset(d->measures, 0, (size_t)(model->layers * MEASURES) * sizeof *d->measures);
    for (int64_t i = 0; i < model->layers; ++i) {
        if (!is_mine(d, i)) continue;
        measure(d, i, x, d->measures + i * MEASURES);
        x += d->tokens * model->d_model;
    }
    free(inputs);
    comm_allreduce(model->world, d->measures, model->layers * MEASURES, COMM_DOUBLE, COMM_SUM);
}

/* ---- Side files ---- */

/* Some elements of an array of `size`, the same on any number of ranks; of these out gets the ones in data, which are
 * [first, first + count). Returns how many there are; out NULL: only that. */
static int64_t sample(real *out, const char *name, int64_t size, const real *data, int64_t first, int64_t count) {
    int64_t n = size < SAMPLE ? size : SAMPLE;
    for (int64_t j = 0; j < n && out; ++j) {
        uint64_t place = hash_splitmix64((uint64_t)hash_string(name) << 32 | (uint64_t)j) % (uint64_t)size;
        int64_t at = (size == n ? j : (int64_t)place) - first;
        if (at >= 0 && at < count) out[j] = data[at];
    }
    return n;
}

/* The same of device memory. */
static int64_t sample_here(real *out, const char *name, int64_t size, const real *at, int64_t first, int64_t count) {
    const real *data = out && count ? device_view(at, (size_t)count * sizeof *at) : at;
    int64_t n = sample(out, name, size, data, first, count);
    device_view_close(data, at);
    return n;
}

static int64_t sample_param(const struct model *model, real *out, const struct param *p) {
    int64_t row = 1;
    for (int axis = 1; axis < p->rank; ++axis) row *= p->shape[axis];
    bool mine = p->placement == PLACE_EXPERT ? model->replicas->rank == 0 : model->world->rank == 0;
    return sample_here(out, p->name, p->shape[0] * row, p->data, p->first * row, mine ? p->count * row : 0);
}

enum part { PART_EXPERTS, PART_ROUTER, PART_CODES, PARTS };
static const char *const part_names[PARTS] = {"/sample/experts", "/sample/router", "/sample/codes"};

/* One layer's part of the model. The codes are those in use, whatever they are made from. */
static int64_t sample_part(const struct diagnostics *d, enum part part, int64_t layer, real *out) {
    const struct model *model = d->model;
    const struct moe *moe = &model->blocks[layer].moe;
    char prefix[PARAM_NAME];
    int64_t n = 0;
    snprintf(prefix, sizeof prefix, "layer.%lld.router.", (long long)layer);
    if (part == PART_CODES && d->codes) {
        int64_t size = moe->quantizer.M * moe->quantizer.width;
        snprintf(prefix, sizeof prefix, "layer.%lld.codes", (long long)layer);
        return sample_here(out, prefix, size, moe->quantizer.v, 0, model->world->rank ? 0 : size);
    }
    for (int i = 0; i < model->params.count && part != PART_CODES; ++i) {
        const struct param *p = model->params.list[i];
        bool taken = part == PART_ROUTER ? !strncmp(p->name, prefix, strlen(prefix)) && p->placement != PLACE_STATE
                                         : model->E && (p == moe->experts.w1 || p == moe->experts.w2);
        if (taken) n += sample_param(model, out ? out + n : NULL, p);
    }
    return n;
}

/* [layers, *n] of all ranks; the caller frees it. */
static real *sample_layers(const struct diagnostics *d, enum part part, int64_t *n) {
    int64_t layers = d->model->layers;
    *n = sample_part(d, part, 0, NULL);
    real *all = zeros(layers * *n, sizeof *all);
    for (int64_t i = 0; i < layers; ++i) sample_part(d, part, i, all + i * *n);
    comm_allreduce(d->model->world, all, layers * *n, COMM_REAL, COMM_SUM);
    return all;
}

/* A table of which this process has all rows, or none. */
struct table {
    const char *name;
    enum h5_type type;
    int64_t rows, columns;
    const void *data;
};

static void put_table(struct snapshot *snapshot, const struct table *table, bool mine) {
    int64_t shape[] = {table->rows, table->columns}, size = table->type == H5T_FLOAT32 ? 4 : 8;
    if (!shape[0] || !shape[1]) return;
    void *place = snapshot_put(snapshot, table->name, table->type, 2, shape, 0, mine ? shape[0] : 0);
    if (mine) memcpy(place, table->data, (size_t)(shape[0] * shape[1] * size));
}

static void put_look(const struct diagnostics *d, struct snapshot *snapshot, int64_t updates, const int64_t *sent,
                     real *const *samples, const int64_t *n) {
    int64_t layers = d->model->layers, N = d->tokens, ranks = d->model->group->size;
    const struct table tables[] = {{"/experts", H5T_INT64, d->routes ? layers : 0, N, d->experts},
                                   {"/codes", H5T_INT64, d->codes ? layers : 0, N, d->chosen},
                                   {"/load", H5T_FLOAT64, layers, d->model->E, d->load},
                                   {"/usage", H5T_FLOAT64, layers, d->codes, d->usage},
                                   {"/dropped", H5T_FLOAT64, layers, 2, d->dropped},
                                   {"/bytes", H5T_INT64, ranks, ranks, sent}};
    snapshot_put_int(snapshot, "step", updates);
    snapshot_put_int(snapshot, "interval", d->steps);
    snapshot_put_int(snapshot, "layers", layers);
    memcpy(snapshot_put(snapshot, "/symbols", H5T_INT64, 1, &N, 0, N), d->symbols, (size_t)N * sizeof *d->symbols);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; ++i) put_table(snapshot, &tables[i], true);
    for (int part = 0; part < PARTS; ++part)
        put_table(snapshot, &(struct table){part_names[part], real_type, layers, n[part], samples[part]}, true);
}

/* By rank 0 alone; the samples travel. */
static enum status write_side_file(const struct diagnostics *d, const char *folder, int64_t updates,
                                   const int64_t *sent) {
    char path[1024];
    real *samples[PARTS];
    int64_t n[PARTS];
    enum status status = STATUS_OK;
    snprintf(path, sizeof path, "%s/routing/%lld.h5", folder, (long long)updates);
    for (int part = 0; part < PARTS; ++part) samples[part] = sample_layers(d, (enum part)part, &n[part]);
    if (d->model->world->rank == 0) {
        struct snapshot *snapshot = snapshot_new(NULL);
        put_look(d, snapshot, updates, sent, samples, n);
        status = snapshot_write(snapshot, path);
        snapshot_free(snapshot);
    }
    for (int part = 0; part < PARTS; ++part) free(samples[part]);
    return comm_agree(d->model->world, status);
}

static void swap(int64_t **a, int64_t **b) {
    int64_t *c = *a;
    *a = *b;
    *b = c;
}

enum status diagnostics_line(struct diagnostics *d, struct metrics *metrics, struct pass_memory *arenas,
                             const char *folder, int64_t updates, bool regular) {
    if (!d->model) return STATUS_OK;
    double from = clock_seconds();
    diagnostics_look(d, arenas, updates, false);
    int64_t *sent = sent_matrix(d);
    enum status status = write_side_file(d, folder, updates, sent);
    struct routing_line line = {
        .step = updates,
        .layers = d->model->layers,
        .measures = d->measures,
        .bytes = d->steps ? sent_between(sent, d->model->group->size) / (double)d->steps : 0,
        .seconds = clock_seconds() - from,
    };
    free(sent);
    if (!status) status = comm_agree(d->model->world, metrics_write_routing(metrics, &line));
    if (status || !regular) return status;
    swap(&d->experts, &d->last_experts);
    swap(&d->chosen, &d->last_chosen);
    d->has_last = true;
    begin_interval(d);
    return STATUS_OK;
}

int64_t diagnostics_files(const char *folder, int64_t **updates) {
    char path[1024];
    int64_t count = 0;
    snprintf(path, sizeof path, "%s/routing", folder);
    *updates = NULL;
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char *end;
        long long step = strtoll(entry->d_name, &end, 10);
        if (end == entry->d_name || strcmp(end, ".h5") != 0) continue;
        *updates = realloc(*updates, (size_t)(count + 1) * sizeof **updates);
        if (!*updates) FATAL("out of memory");
        int64_t at = count++;
        for (; at > 0 && (*updates)[at - 1] > step; --at) (*updates)[at] = (*updates)[at - 1];
        (*updates)[at] = step;
    }
    if (dir) closedir(dir);
    return count;
}

enum status diagnostics_cut_back(const char *folder, int64_t step) {
    int64_t *updates, count = diagnostics_files(folder, &updates);
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < count; ++i) {
        char path[1024];
        snprintf(path, sizeof path, "%s/routing/%lld.h5", folder, (long long)updates[i]);
        if (updates[i] > step && unlink(path))
            status = status_fail(STATUS_WRITE, "%s: cannot remove: %s", path, strerror(errno));
    }
    free(updates);
    return status;
}

/* ---- In a checkpoint ---- */

void diagnostics_save(struct diagnostics *d, struct snapshot *snapshot) {
    if (!d->model) return;
    int64_t layers = d->model->layers, N = d->tokens, ranks = d->model->group->size, last = d->has_last ? layers : 0;
    int64_t *sent = sent_matrix(d);
    const struct table tables[] = {{"/diagnostics/sent", H5T_INT64, ranks, ranks, sent},
                                   {"/diagnostics/steps", H5T_INT64, 1, 1, &d->steps},
                                   {"/diagnostics/dropped", H5T_FLOAT64, layers, 2, d->dropped},
                                   {"/diagnostics/load", H5T_FLOAT64, layers, d->model->E, d->load},
                                   {"/diagnostics/usage", H5T_FLOAT64, layers, d->codes, d->usage},
                                   {"/diagnostics/symbols", H5T_INT64, 1, N, d->symbols},
                                   {"/diagnostics/experts", H5T_INT64, d->routes ? last : 0, N, d->last_experts},
                                   {"/diagnostics/codes", H5T_INT64, d->codes ? last : 0, N, d->last_chosen}};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; ++i)
        put_table(snapshot, &tables[i], d->model->world->rank == 0);
    free(sent);
}

/* Rows of a table, where the file has one of that very shape: *there. */
static enum status take(struct archive *archive, const char *name, enum h5_type type, int64_t rows, int64_t columns,
                        int64_t first, int64_t count, void *data, bool *there) {
    int64_t expected[] = {rows, columns};
    const struct h5_array *found = archive_find(archive, name);
    *there = found && found->rank == 2 && found->shape[0] == rows && found->shape[1] == columns;
    return *there ? archive_read(archive, name, type, 2, expected, first, count, data) : STATUS_OK;
}

static enum status restore_last(struct diagnostics *d, struct archive *archive) {
    int64_t layers = d->model->layers, N = d->tokens;
    bool experts, codes;
    TRY(take(archive, "/diagnostics/experts", H5T_INT64, layers, N, 0, layers, d->last_experts, &experts));
    TRY(take(archive, "/diagnostics/codes", H5T_INT64, layers, N, 0, layers, d->last_chosen, &codes));
    d->has_last = experts == d->routes && codes == (d->codes > 0);
    return STATUS_OK;
}

static enum status restore_interval(struct diagnostics *d, struct archive *archive) {
    int64_t layers = d->model->layers, ranks = d->model->group->size;
    bool there;
    TRY(take(archive, "/diagnostics/dropped", H5T_FLOAT64, layers, 2, 0, layers, d->dropped, &there));
    TRY(take(archive, "/diagnostics/load", H5T_FLOAT64, layers, d->model->E, 0, layers, d->load, &there));
    TRY(take(archive, "/diagnostics/usage", H5T_FLOAT64, layers, d->codes, 0, layers, d->usage, &there));
    /* Of several ranks that send the same experts' rows, one takes over their bytes. */
    TRY(take(archive, "/diagnostics/sent", H5T_INT64, ranks, ranks, d->model->group->rank,
             d->model->replicas->rank ? 0 : 1, d->sent, &there));
    return there ? take(archive, "/diagnostics/steps", H5T_INT64, 1, 1, 0, 1, &d->steps, &there) : STATUS_OK;
}

enum status diagnostics_restore(struct diagnostics *d, struct archive *archive) {
    if (!d->model) return STATUS_OK;
    int64_t N = d->tokens, *symbols = zeros(N, sizeof *symbols);
    bool same;
    enum status status = restore_interval(d, archive);
    if (!status) status = take(archive, "/diagnostics/symbols", H5T_INT64, 1, N, 0, 1, symbols, &same);
    if (!status && same && !memcmp(symbols, d->symbols, (size_t)N * sizeof *symbols)) status = restore_last(d, archive);
    free(symbols);
    return status;
}
