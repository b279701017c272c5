#include "data/plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "data/candidates.h"

static const char *const keys[SPLITS] = {"data.train", "data.valid", "data.test"};

/* ---- Lists ---- */

/* Room for one more in a list whose room doubles. */
static void *grow(void *list, int64_t count, size_t size) {
    if (count & (count - 1)) return list;
    list = realloc(list, (size_t)(2 * count + 1) * size);
    if (!list) FATAL("out of memory");
    return list;
}

static enum status add_source(struct plan *plan, const char *path, bool archive, int64_t *number) {
    struct stat info;
    const char *slash = strrchr(path, '/');
    for (*number = 0; *number < plan->n_sources; ++*number)
        if (!strcmp(plan->sources[*number].path, path)) return STATUS_OK;
    if (stat(path, &info)) return status_fail(STATUS_DATA, "%s: cannot stat: %s", path, strerror(errno));
    plan->sources = grow(plan->sources, plan->n_sources, sizeof *plan->sources);
    struct source *source = &plan->sources[plan->n_sources++];
    memset(source, 0, sizeof *source);
    snprintf(source->path, sizeof source->path, "%s", path);
    snprintf(source->is.name, sizeof source->is.name, "%s", slash ? slash + 1 : path);
    source->is.bytes = info.st_size;
    source->is.modified = (int64_t)info.st_mtim.tv_sec * 1000000 + info.st_mtim.tv_nsec / 1000;
    source->archive = archive;
    return STATUS_OK;
}

static enum status add_member(struct plan *plan, const struct candidate *from, enum split split, int64_t shard,
                              bool cut) {
    int64_t source;
    if (from->bytes == 0)
        return status_fail(STATUS_DATA, "%s%s%s: expected text, found an empty file", from->path,
                           from->archive ? ": " : "", from->archive ? from->name : "");
    TRY(add_source(plan, from->path, from->archive, &source));
    plan->members = grow(plan->members, plan->n_members, sizeof *plan->members);
    struct member *member = &plan->members[plan->n_members++];
    memset(member, 0, sizeof *member);
    member->source = source;
    member->index = from->index;
    member->bytes = from->bytes;
    member->shard = shard;
    member->split = (int32_t)split;
    member->cut = cut;
    return STATUS_OK;
}

/* ---- Which files ---- */

/* Those that have the word in their names. */
static enum status add_named(struct plan *plan, const struct candidates *found, enum split split) {
    const struct candidate *one = NULL;
    for (int64_t i = 0; i < found->count; ++i) {
        if (!strstr(found->list[i].name, split_names[split])) continue;
        if (one)
            return status_fail(STATUS_DATA, "%s: %s: expected one file *%s*, found %s and %s", found->key, found->path,
                               split_names[split], one->name, found->list[i].name);
        one = &found->list[i];
    }
    if (!one && split == SPLIT_TEST) return STATUS_OK;
    if (!one)
        return status_fail(STATUS_DATA, "%s: %s: expected a file *%s*, found none", found->key, found->path,
                           split_names[split]);
    return add_member(plan, one, split, 0, false);
}

/* A path of its own: one file, or the one of an archive. */
static enum status add_only(struct plan *plan, const struct candidates *found, enum split split, bool cut) {
    if (found->count > 1) return add_named(plan, found, split);
    if (found->count == 1) return add_member(plan, &found->list[0], split, 0, cut);
    return status_fail(STATUS_DATA, "%s: %s: expected a file, found none", found->key, found->path);
}

static bool shard_of(const char *name, bool training, int64_t *number, int64_t *of) {
    long long n, m;
    int length = 0;
    const char *format = training ? "news.en-%5lld-of-%5lld%n" : "news.en.heldout-%5lld-of-%5lld%n";
    if (sscanf(name, format, &n, &m, &length) != 2 || name[length]) return false;
    *number = n;
    *of = m;
    return true;
}

/* All shards of one kind must be there: training without the first, which the held-out ones were cut from. `wanted`
 * is the one that becomes the split, at -1 all do. */
static enum status add_shards(struct plan *plan, const struct candidates *found, bool training, int64_t wanted,
                              enum split split) {
    int64_t number, of = 0, there;
    for (int64_t i = 0; i < found->count && !of; ++i)
        if (!shard_of(found->list[i].name, training, &number, &of)) of = 0;
    const char *kind = training ? "news.en" : "news.en.heldout";
    if (of < 2)
        return status_fail(STATUS_DATA, "%s: %s: expected shards %s-NNNNN-of-NNNNN, found none", found->key,
                           found->path, kind);
    for (int64_t shard = training; shard < of; ++shard) {
        const struct candidate *one = NULL;
        for (int64_t i = 0; i < found->count && !one; ++i)
            if (shard_of(found->list[i].name, training, &number, &there) && number == shard && there == of)
                one = &found->list[i];
        if (!one)
            return status_fail(STATUS_DATA, "%s: %s: expected shard %s-%05lld-of-%05lld, found none", found->key,
                               found->path, kind, (long long)shard, (long long)of);
        if (wanted < 0 || wanted == shard) TRY(add_member(plan, one, split, shard, false));
    }
    return STATUS_OK;
}

/* What stands in data.train for a split: in lm1b the first held-out shard is what the literature tests on, the second
 * is ours to select by. */
static enum status add_from_train(struct plan *plan, const struct candidates *found, enum split split) {
    static const int64_t held_out[SPLITS] = {-1, 1, 0};
    bool folder = found->count && !found->list[0].archive && strcmp(found->list[0].path, found->path) != 0;
    bool several = found->count > 1 || (folder && plan->kind == DATA_LM1B);
    if (split == SPLIT_TRAIN && !several) return add_only(plan, found, split, plan->kind <= DATA_TEXT8);
    if (several && plan->kind == DATA_LM1B)
        return add_shards(plan, found, split == SPLIT_TRAIN, held_out[split], split);
    if (several && plan->kind == DATA_WORDS) return add_named(plan, found, split);
    if (several)
        return status_fail(STATUS_DATA, "%s: %s: expected one file, found %s and %s", found->key, found->path,
                           found->list[0].name, found->list[1].name);
    if (split == SPLIT_TEST) return STATUS_OK;
    return status_fail(STATUS_DATA, "%s: expected the path of a text, found none", keys[split]);
}

static enum status add_split(struct plan *plan, const struct candidates *train, const char *own, enum split split) {
    struct candidates found;
    if (split == SPLIT_TRAIN || !own[0]) return add_from_train(plan, train, split);
    enum status status = candidates_find(&found, keys[split], own);
    if (!status) status = add_only(plan, &found, split, false);
    candidates_free(&found);
    return status;
}

static enum status add_splits(struct plan *plan, const struct config *config) {
    const char *const paths[SPLITS] = {config->data.train, config->data.valid, config->data.test};
    int splits = plan->kind <= DATA_TEXT8 ? 1 : SPLITS;
    struct candidates train;
    enum status status = candidates_find(&train, keys[SPLIT_TRAIN], config->data.train);
    for (int s = 0; s < splits && !status; ++s) status = add_split(plan, &train, paths[s], (enum split)s);
    candidates_free(&train);
    return status;
}

/* ---- Pieces ---- */

static void add_pieces(struct plan *plan, int64_t member, enum split split, int64_t from, int64_t to,
                       int64_t number[SPLITS]) {
    int64_t count = (to - from + plan->piece_bytes - 1) / plan->piece_bytes;
    for (int64_t i = 0; i < count; ++i) {
        plan->pieces = grow(plan->pieces, plan->n_pieces, sizeof *plan->pieces);
        plan->pieces[plan->n_pieces++] = (struct piece){.member = member,
                                                        .from = from + (to - from) * i / count,
                                                        .to = from + (to - from) * (i + 1) / count,
                                                        .split = split,
                                                        .number = number[split]++};
    }
}

/* qsort has no argument of its own. */
static const struct plan *sorted;

static int by_place(const void *a, const void *b) {
    const struct piece *x = a, *y = b;
    const struct member *p = &sorted->members[x->member], *q = &sorted->members[y->member];
    if (p->source != q->source) return p->source < q->source ? -1 : 1;
    if (p->index != q->index) return p->index < q->index ? -1 : 1;
    return (x->from > y->from) - (x->from < y->from);
}

static void cut_pieces(struct plan *plan) {
    int64_t number[SPLITS] = {0};
    for (int64_t i = 0; i < plan->n_members; ++i) {
        const struct member *m = &plan->members[i];
        const int64_t cuts[SPLITS + 1] = {0, m->bytes * 18 / 20, m->bytes * 19 / 20, m->bytes};
        if (!m->cut) add_pieces(plan, i, (enum split)m->split, 0, m->bytes, number);
        for (int s = 0; s < SPLITS && m->cut; ++s) add_pieces(plan, i, (enum split)s, cuts[s], cuts[s + 1], number);
    }
    sorted = plan;
    qsort(plan->pieces, (size_t)plan->n_pieces, sizeof *plan->pieces, by_place);
}

/* ---- The plan ---- */

static enum status check_sizes(const struct plan *plan) {
    const struct member *m = plan->members;
    if (plan->kind > DATA_TEXT8) return STATUS_OK;
    if (m->bytes < 20)
        return status_fail(STATUS_DATA, "data.train: %s: expected 100000000 bytes, found %lld, too few to be cut",
                           plan->sources[m->source].path, (long long)m->bytes);
    if (m->bytes != 100000000)
        log_warning("data.train: %s: expected 100000000 bytes, found %lld; cut 90:5:5 all the same",
                    plan->sources[m->source].path, (long long)m->bytes);
    return STATUS_OK;
}

enum status plan_make(struct plan *plan, const struct config *config, const char *tool, int64_t piece_bytes) {
    bool words = config->data.kind > DATA_TEXT, given = words && config->data.vocabulary[0];
    *plan = (struct plan){.kind = config->data.kind,
                          .newlines = words ? NEWLINES_KEEP : config->data.newlines,
                          .vocabulary = -1,
                          .piece_bytes = piece_bytes};
    snprintf(plan->tool, sizeof plan->tool, "%s", tool);
    if (words && !given)
        plan->min_count = config->data.min_count ? config->data.min_count : plan->kind == DATA_LM1B ? 3 : 1;
    TRY(add_splits(plan, config));
    TRY(check_sizes(plan));
    cut_pieces(plan);
    return given ? add_source(plan, config->data.vocabulary, false, &plan->vocabulary) : STATUS_OK;
}

void plan_free(struct plan *plan) {
    free(plan->sources);
    free(plan->members);
    free(plan->pieces);
    *plan = (struct plan){0};
}

/* ---- As bytes ---- */

struct header {
    char tool[64];
    int64_t size, kind, newlines, min_count, vocabulary, piece_bytes, n_sources, n_members;
};

void *plan_bytes(const struct plan *plan, int64_t *size) {
    struct header header = {.kind = plan->kind,
                            .newlines = plan->newlines,
                            .min_count = plan->min_count,
                            .vocabulary = plan->vocabulary,
                            .piece_bytes = plan->piece_bytes,
                            .n_sources = plan->n_sources,
                            .n_members = plan->n_members};
    size_t sources = (size_t)plan->n_sources * sizeof *plan->sources,
           members = (size_t)plan->n_members * sizeof *plan->members;
    memcpy(header.tool, plan->tool, sizeof header.tool);
    header.size = *size = (int64_t)(sizeof header + sources + members);
    char *bytes = malloc((size_t)*size);
    if (!bytes) FATAL("out of memory");
    memcpy(bytes, &header, sizeof header);
    memcpy(bytes + sizeof header, plan->sources, sources);
    memcpy(bytes + sizeof header + sources, plan->members, members);
    return bytes;
}

enum status plan_from_bytes(struct plan *plan, const void *bytes, int64_t size, const char *path) {
    struct header header = {0};
    const char *at = bytes;
    *plan = (struct plan){0};
    if (size >= (int64_t)sizeof header) memcpy(&header, at, sizeof header);
    if (size < (int64_t)sizeof header || header.size > size || header.size < (int64_t)sizeof header)
        return status_fail(STATUS_DATA, "%s: expected the plan of a preparation, found something else", path);
    *plan = (struct plan){.kind = (enum data_kind)header.kind,
                          .newlines = (enum newlines)header.newlines,
                          .min_count = header.min_count,
                          .vocabulary = header.vocabulary,
                          .piece_bytes = header.piece_bytes,
                          .n_sources = header.n_sources,
                          .n_members = header.n_members};
    memcpy(plan->tool, header.tool, sizeof plan->tool);
    size_t sources = (size_t)plan->n_sources * sizeof *plan->sources,
           members = (size_t)plan->n_members * sizeof *plan->members;
    plan->sources = malloc(sources);
    plan->members = malloc(members);
    if (!plan->sources || !plan->members) FATAL("out of memory");
    memcpy(plan->sources, at + sizeof header, sources);
    memcpy(plan->members, at + sizeof header + sources, members);
    cut_pieces(plan);
    return STATUS_OK;
}

/* ---- Comparing ---- */

static bool same_sources(const struct source *a, int64_t n_a, const struct manifest_source *b, int64_t n_b, char *what,
                         size_t size) {
    if (n_a != n_b) {
        snprintf(what, size, "%lld sources, there %lld", (long long)n_a, (long long)n_b);
        return false;
    }
    for (int64_t i = 0; i < n_a; ++i, ++b) {
        const struct manifest_source *one = &a[i].is;
        if (strcmp(one->name, b->name) != 0)
            snprintf(what, size, "source %s, there %s", one->name, b->name);
        else if (one->bytes != b->bytes)
            snprintf(what, size, "%s of %lld bytes, there %lld", one->name, (long long)one->bytes, (long long)b->bytes);
        else if (one->modified != b->modified)
            snprintf(what, size, "%s modified at %.6f, there %.6f (seconds since 1970)", one->name,
                     1e-6 * (double)one->modified, 1e-6 * (double)b->modified);
        else
            continue;
        return false;
    }
    return true;
}

bool plan_fits(const struct plan *plan, const struct manifest *m, char *what, size_t size) {
    if (plan->kind != m->kind)
        snprintf(what, size, "data.kind %s, there %s", manifest_kinds[plan->kind], manifest_kinds[m->kind]);
    else if (plan->newlines != m->newlines)
        snprintf(what, size, "another data.newlines");
    else if (plan->min_count != m->min_count)
        snprintf(what, size, "data.min_count %lld, there %lld (0: a data.vocabulary)", (long long)plan->min_count,
                 (long long)m->min_count);
    else
        return same_sources(plan->sources, plan->n_sources, m->sources, m->n_sources, what, size);
    return false;
}
