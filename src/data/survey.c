/* The first stages of a preparation: the symbols that there are; and digests. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/files.h"
#include "base/log.h"
#include "data/bytes.h"
#include "data/counts.h"
#include "data/output.h"
#include "data/prepare_private.h"
#include "data/sha256.h"
#include "data/words.h"
#include "data/work.h"

enum { BLOCK = 1 << 18, LINE_FEED = '\n' };

void prepare_name_digest(char name[PREPARE_NAME], int64_t source) {
    snprintf(name, PREPARE_NAME, "digest-%05lld", (long long)source);
}

void prepare_name_seen(char name[PREPARE_NAME], const struct piece *piece) {
    snprintf(name, PREPARE_NAME, "seen-%s-%05lld", split_names[piece->split], (long long)piece->number);
}

static void prepare_name_counts(char name[PREPARE_NAME], const struct piece *piece) {
    snprintf(name, PREPARE_NAME, "counts-%05lld", (long long)piece->number);
}

/* ---- Digests ---- */

static enum status put_digest(const struct preparation *p, int64_t source, const char sum[SHA256_TEXT]) {
    char name[PREPARE_NAME];
    prepare_name_digest(name, source);
    return output_note(p->work, name, sum, SHA256_TEXT);
}

static enum status sum_file(const char *path, struct sha256 *sum) {
    static _Thread_local char block[BLOCK];
    ssize_t got = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && ((got = read(fd, block, BLOCK)) > 0 || (got < 0 && errno == EINTR)))
        if (got > 0) sha256_add(sum, block, (size_t)got);
    int cause = errno;
    if (fd >= 0) close(fd);
    return fd < 0 || got < 0 ? status_fail(STATUS_DATA, "%s: cannot read: %s", path, strerror(cause)) : STATUS_OK;
}

enum status prepare_digest(const struct preparation *p, int64_t source) {
    char text[SHA256_TEXT];
    struct sha256 *sum = sha256_new();
    enum status status = sum_file(p->plan.sources[source].path, sum);
    sha256_end(sum, text);
    return status ? status : put_digest(p, source, text);
}

/* Whether a piece is all of its file: then it is read once for both. */
static bool is_whole(const struct plan *plan, const struct piece *piece) {
    const struct member *member = &plan->members[piece->member];
    return !plan->sources[member->source].archive && piece->from == 0 && piece->to == member->bytes;
}

/* ---- Symbols ---- */

static enum status check_text8(const struct load *load, const char *path) {
    for (int64_t i = 0; i < load->size; ++i) {
        unsigned char c = (unsigned char)load->bytes[i];
        if (c != ' ' && (c < 'a' || c > 'z'))
            return status_fail(STATUS_DATA, "%s: byte %lld: expected a to z or a space (text8), found byte %d", path,
                               (long long)(load->start + i), c);
    }
    return STATUS_OK;
}

/* Block by block; into the digest too, unless that is NULL. */
static enum status see_blocks(const struct preparation *p, struct load *load, const char *path, struct sha256 *sum,
                              bool seen[256]) {
    for (bool more = true; more;) {
        if (p->plan.kind == DATA_TEXT8) TRY(check_text8(load, path));
        if (sum) sha256_add(sum, load->bytes, (size_t)load->size);
        bytes_see((const uint8_t *)load->bytes, load->size, seen);
        TRY(stream_next_block(load, &more));
    }
    return STATUS_OK;
}

static enum status see_bytes(const struct preparation *p, const struct piece *piece, struct load *load,
                             const char *path) {
    bool seen[256] = {false};
    char name[PREPARE_NAME], text[SHA256_TEXT];
    struct sha256 *sum = is_whole(&p->plan, piece) ? sha256_new() : NULL;
    enum status status = see_blocks(p, load, path, sum, seen);
    if (sum) sha256_end(sum, text);
    if (!status && sum) status = put_digest(p, p->plan.members[piece->member].source, text);
    prepare_name_seen(name, piece);
    return status ? status : output_note(p->work, name, seen, sizeof seen);
}

static enum status write_counts(const struct preparation *p, const struct piece *piece, const struct load *load) {
    struct output output;
    char name[PREPARE_NAME];
    uint64_t sum;
    struct counts *counts = counts_new();
    counts_add(counts, load->bytes, load->size);
    prepare_name_counts(name, piece);
    enum status status = output_begin(&output, p->work, name);
    if (!status) status = counts_write(counts, &output);
    counts_free(counts);
    TRY(output_end(&output, status, &sum));
    prepare_name_seen(name, piece);
    return output_note(p->work, name, &sum, sizeof sum);
}

static enum status count_words(const struct preparation *p, const struct piece *piece, const struct load *load,
                               const char *path) {
    char sum[SHA256_TEXT];
    TRY(words_check(load->bytes, load->size, load->start, path));
    if (is_whole(&p->plan, piece)) {
        sha256_of(load->bytes, (size_t)load->size, sum);
        TRY(put_digest(p, p->plan.members[piece->member].source, sum));
    }
    return write_counts(p, piece, load);
}

static enum status survey(struct preparation *p, const struct unit *unit, struct load *load) {
    const struct piece *piece = &p->plan.pieces[unit->piece];
    const char *path = p->plan.sources[p->plan.members[piece->member].source].path;
    return plan_has_lines(&p->plan) ? count_words(p, piece, load, path) : see_bytes(p, piece, load, path);
}

/* ---- The stage ---- */

static enum status read_plan(struct preparation *p) {
    char path[PATH_MAX];
    struct text_map map;
    if (p->rank == 0) return STATUS_OK;
    snprintf(path, sizeof path, "%s/plan", p->work);
    files_await(path);
    TRY(text_map_file(&map, "data.prepared", path));
    enum status status = plan_from_bytes(&p->plan, map.address, map.size, path);
    text_unmap(&map);
    return status;
}

static bool has_digest(const struct preparation *p, int64_t source) {
    char name[PREPARE_NAME], sum[SHA256_TEXT];
    prepare_name_digest(name, source);
    return output_read_note(p->work, name, sum, sizeof sum);
}

static bool is_seen(const struct preparation *p, const struct piece *piece) {
    char name[PREPARE_NAME], counts[PREPARE_NAME];
    bool seen[256], there;
    uint64_t sum;
    prepare_name_seen(name, piece);
    prepare_name_counts(counts, piece);
    if (plan_has_lines(&p->plan))
        there = output_read_note(p->work, name, &sum, sizeof sum) && output_has(p->work, counts, sum);
    else
        there = output_read_note(p->work, name, seen, sizeof seen);
    return there && (!is_whole(&p->plan, piece) || has_digest(p, p->plan.members[piece->member].source));
}

/* Of words those of the training text alone, if they are not given; of bytes all. */
static bool is_surveyed(const struct plan *plan, const struct piece *piece) {
    return !plan_has_lines(plan) || (plan->vocabulary < 0 && piece->split == SPLIT_TRAIN);
}

void prepare_list_digests(struct work *work) {
    const struct plan *plan = &work->p->plan;
    bool *summed = calloc((size_t)plan->n_sources, sizeof *summed);
    if (!summed) FATAL("out of memory");
    for (int64_t i = 0; i < plan->n_pieces; ++i)
        if (is_surveyed(plan, &plan->pieces[i]) && is_whole(plan, &plan->pieces[i]))
            summed[plan->members[plan->pieces[i].member].source] = true;
    for (int64_t i = 0; i < plan->n_sources; ++i)
        if (!summed[i]) work_add(work, (struct unit){.piece = -1, .source = i, .kept = has_digest(work->p, i)});
    free(summed);
}

enum status prepare_survey(struct preparation *p) {
    struct work work = {.p = p, .name = "survey", .run = survey};
    TRY(read_plan(p));
    for (int64_t i = 0; i < p->plan.n_pieces; ++i)
        if (is_surveyed(&p->plan, &p->plan.pieces[i]))
            work_add(&work, (struct unit){.piece = i, .kept = is_seen(p, &p->plan.pieces[i])});
    return work_run(&work);
}

/* ---- The vocabulary ---- */

static const char *const eos[] = {"<eos>", NULL}, *const eos_unk[] = {"<eos>", "<unk>", NULL},
                         *const s_unk[] = {"<S>", "<UNK>", NULL};

/* The words of the training text that stay. */
static enum status merge(const struct preparation *p, char **lines, int64_t *length) {
    const struct plan *plan = &p->plan;
    int64_t n = 0;
    char(*paths)[PATH_MAX] = malloc((size_t)plan->n_pieces * sizeof *paths);
    const char **list = malloc((size_t)plan->n_pieces * sizeof *list);
    if (!paths || !list) FATAL("out of memory");
    for (int64_t i = 0; i < plan->n_pieces; ++i) {
        const struct piece *piece = &plan->pieces[i];
        char name[PREPARE_NAME];
        if (piece->split != SPLIT_TRAIN) continue;
        prepare_name_counts(name, piece);
        snprintf(paths[piece->number], PATH_MAX, "%s/%s", p->work, name);
        files_await(paths[piece->number]);
        list[piece->number] = paths[piece->number];
        ++n;
    }
    enum status status = counts_merge(list, n, plan->min_count, plan->kind == DATA_LM1B ? s_unk : eos, lines, length);
    free(paths);
    free(list);
    return status;
}

/* The first field of each line. */
static enum status take_fields(const char *path, char **lines, int64_t *length) {
    struct text_map map;
    TRY(text_map_file(&map, "data.vocabulary", path));
    const char *at = map.address, *end = at + map.size;
    char *to = *lines = malloc((size_t)map.size + 1);
    if (!to) FATAL("out of memory");
    enum status status = words_check(at, map.size, 0, path);
    for (; at < end && !status; ++at) {
        const char *feed = memchr(at, LINE_FEED, (size_t)(end - at)), *word;
        int64_t n = 0;
        if (!feed) feed = end;
        word = words_next(&at, feed, &n);
        if (word) memcpy(to, word, (size_t)n);
        to += n;
        *to++ = LINE_FEED;
        at = feed;
    }
    *length = to - *lines;
    text_unmap(&map);
    return status;
}

/* Specials that are not among the lines come first. */
static enum status put_words(const struct preparation *p, const struct vocabulary *v, const char *lines, int64_t length,
                             struct output *output) {
    for (const char *const *special = p->plan.kind == DATA_LM1B ? s_unk : eos_unk; *special; ++special) {
        int64_t n = (int64_t)strlen(*special);
        if (v->size && vocabulary_find(v, *special, n) >= 0) continue;
        TRY(output_put(output, *special, n));
        TRY(output_put(output, "\n", 1));
    }
    return output_write(output, lines, length);
}

static enum status write_words(const struct preparation *p, const struct vocabulary *v, const char *lines,
                               int64_t length) {
    struct output output;
    uint64_t sum;
    enum status status = output_begin(&output, p->folder, VOCABULARY_FILE);
    if (!status) status = put_words(p, v, lines, length, &output);
    TRY(output_end(&output, status, &sum));
    TRY(output_sync(p->folder, VOCABULARY_FILE));
    return output_note(p->work, "vocabulary", &sum, sizeof sum);
}

static enum status make_words(struct preparation *p) {
    struct vocabulary known = {0};
    char *lines = NULL;
    int64_t length = 0, given = p->plan.vocabulary;
    const char *source = given >= 0 ? p->plan.sources[given].path : "data.train";
    enum status status = given >= 0 ? take_fields(source, &lines, &length) : merge(p, &lines, &length);
    if (!status && length) status = vocabulary_from_words(&known, lines, length, source);
    if (!status) status = write_words(p, &known, lines, length);
    vocabulary_free(&known);
    free(lines);
    return status;
}

enum status prepare_vocabulary(struct preparation *p) {
    uint64_t sum;
    if (p->rank || !plan_has_lines(&p->plan)) return STATUS_OK;
    if (output_read_note(p->work, "vocabulary", &sum, sizeof sum) && output_has(p->folder, VOCABULARY_FILE, sum))
        return STATUS_OK;
    log_progress("vocabulary");
    return make_words(p);
}
