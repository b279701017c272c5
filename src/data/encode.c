/* The last stage of a preparation that all ranks share: pieces become parts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/files.h"
#include "base/log.h"
#include "data/output.h"
#include "data/prepare_private.h"
#include "data/words.h"
#include "data/work.h"

enum { LINE_FEED = '\n' };

void prepare_name_done(char name[PREPARE_NAME], const struct piece *piece) {
    snprintf(name, PREPARE_NAME, "done-%s-%05lld", split_names[piece->split], (long long)piece->number);
}

/* ---- Vocabulary ---- */

static enum status union_of_bytes(struct preparation *p) {
    bool all[256] = {false}, seen[256];
    for (int64_t i = 0; i < p->plan.n_pieces; ++i) {
        char name[PREPARE_NAME];
        prepare_name_seen(name, &p->plan.pieces[i]);
        if (!prepare_await(p, name, seen, sizeof seen))
            return status_fail(STATUS_INTERNAL, "%s/%s: expected the bytes of a piece, found none", p->work, name);
        for (int byte = 0; byte < 256; ++byte) all[byte] |= seen[byte];
    }
    if (p->plan.newlines == NEWLINES_DROP) all[LINE_FEED] = false;
    vocabulary_from_bytes(&p->vocabulary, all);
    return STATUS_OK;
}

static enum status load_vocabulary(struct preparation *p) {
    char path[PATH_MAX];
    struct text_map map;
    if (!plan_has_lines(&p->plan)) return union_of_bytes(p);
    snprintf(path, sizeof path, "%s/" VOCABULARY_FILE, p->folder);
    files_await(path);
    TRY(text_map_file(&map, "data.prepared", path));
    enum status status = vocabulary_from_words(&p->vocabulary, map.address, map.size, path);
    text_unmap(&map);
    return status;
}

/* ---- Parts ---- */

/* Bytes that do not occur lie in gaps; a symbol is its byte less the gaps below. */
struct gaps {
    int n;
    uint8_t end[256], size[256]; /* [n] the byte above the gap, and its length; rising */
};

static struct gaps gaps_of(const struct vocabulary *v) {
    struct gaps gaps = {0};
    for (int byte = 0, size = 0; byte < 256; ++byte) {
        size = v->symbol_of[byte] < 0 ? size + 1 : 0;
        bool last = size && byte < 255 && v->symbol_of[byte + 1] >= 0;
        if (!last) continue;
        gaps.end[gaps.n] = (uint8_t)(byte + 1);
        gaps.size[gaps.n++] = (uint8_t)size;
    }
    return gaps;
}

/* The highest gap first: what is above it stays above the others. Compilers make vectors of it. */
static void close_gaps(const struct gaps *gaps, uint8_t *bytes, int64_t n) {
    for (int g = gaps->n; g-- > 0;) {
        uint8_t end = gaps->end[g], size = gaps->size[g];
        for (int64_t i = 0; i < n; ++i) bytes[i] = (uint8_t)(bytes[i] - (bytes[i] >= end ? size : 0));
    }
}

static int64_t drop_line_feeds(uint8_t *bytes, int64_t n) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; ++i) {
        uint8_t byte = bytes[i];
        bytes[kept] = byte;
        kept += byte != LINE_FEED;
    }
    return kept;
}

/* Bytes become symbols where they stand. */
static enum status put_bytes(const struct preparation *p, struct load *load, struct output *output,
                             struct manifest_part *part) {
    enum { IN_CACHE = 1 << 13 };
    const struct gaps gaps = gaps_of(&p->vocabulary);
    for (bool more = true; more;) {
        uint8_t *bytes = (uint8_t *)load->bytes;
        part->bytes += load->size;
        int64_t n = p->plan.newlines == NEWLINES_DROP ? drop_line_feeds(bytes, load->size) : load->size;
        for (int64_t at = 0; at < n; at += IN_CACHE)
            close_gaps(&gaps, bytes + at, n - at < IN_CACHE ? n - at : IN_CACHE);
        part->tokens += n;
        TRY(output_write(output, bytes, n));
        TRY(stream_next_block(load, &more));
    }
    return STATUS_OK;
}

struct encoder {
    const struct vocabulary *vocabulary;
    int width;
    struct output *ids, *index; /* index: of sentences; NULL: words and line ends */
    struct manifest_part *part;
};

static enum status put_id(struct encoder *e, int32_t id) {
    e->part->tokens++;
    return output_put(e->ids, &id, e->width); /* little endian: its low bytes */
}

/* A mark before the words; lines without words have none. */
static enum status put_sentence_begin(struct encoder *e) {
    uint32_t begin = (uint32_t)e->part->tokens;
    TRY(output_put(e->index, &begin, sizeof begin));
    e->part->sentences++;
    return put_id(e, e->vocabulary->end);
}

static enum status put_line(struct encoder *e, const char *at, const char *end) {
    const char *word;
    bool first = e->index != NULL;
    for (int64_t length; (word = words_next(&at, end, &length)); first = false) {
        if (first) TRY(put_sentence_begin(e));
        int32_t id = vocabulary_find(e->vocabulary, word, length);
        e->part->unknown += id < 0;
        TRY(put_id(e, id < 0 ? e->vocabulary->unknown : id));
    }
    return e->index ? STATUS_OK : put_id(e, e->vocabulary->end);
}

static enum status put_words(struct encoder *e, const struct load *load, const char *path) {
    const char *at = load->bytes, *end = at + load->size;
    e->part->bytes = load->size;
    TRY(words_check(load->bytes, load->size, load->start, path));
    while (at < end) {
        const char *feed = memchr(at, LINE_FEED, (size_t)(end - at)); /* every line has one */
        TRY(put_line(e, at, feed));
        at = feed + 1;
    }
    if (!e->index) return STATUS_OK;
    uint32_t last = (uint32_t)e->part->tokens;
    TRY(put_id(e, e->vocabulary->end));
    return output_put(e->index, &last, sizeof last);
}

/* The files of one part; *part: what the manifest says of it. */
static enum status write_part(struct preparation *p, const struct piece *piece, struct load *load,
                              struct manifest_part *part) {
    struct output ids = {.fd = -1}, index = {.fd = -1};
    bool sentences = p->plan.kind == DATA_LM1B;
    char name[PART_NAME];
    const char *path = p->plan.sources[p->plan.members[piece->member].source].path;
    struct encoder encoder = {&p->vocabulary, manifest_width(p->vocabulary.size), &ids, sentences ? &index : NULL,
                              part};
    manifest_part_name(name, piece->split, piece->number, ".bin");
    enum status status = output_begin(&ids, p->folder, name);
    manifest_part_name(name, piece->split, piece->number, ".idx");
    if (!status && sentences) status = output_begin(&index, p->folder, name);
    if (!status) status = plan_has_lines(&p->plan) ? put_words(&encoder, load, path) : put_bytes(p, load, &ids, part);
    status = output_end(&ids, status, &part->sum);
    return sentences ? output_end(&index, status, &part->index) : status;
}

static enum status encode(struct preparation *p, const struct unit *unit, struct load *load) {
    const struct piece *piece = &p->plan.pieces[unit->piece];
    struct manifest_part part = {0};
    char name[PREPARE_NAME];
    TRY(write_part(p, piece, load, &part));
    prepare_name_done(name, piece);
    return output_note(p->work, name, &part, sizeof part);
}

/* ---- The stage ---- */

static bool has_size(const struct preparation *p, const struct piece *piece, const char *ending, int64_t bytes) {
    char name[PART_NAME], path[PATH_MAX];
    struct stat info;
    manifest_part_name(name, piece->split, piece->number, ending);
    snprintf(path, sizeof path, "%s/%s", p->folder, name);
    return stat(path, &info) == 0 && info.st_size == bytes;
}

static bool is_done(const struct preparation *p, const struct piece *piece) {
    struct manifest_part part;
    char name[PREPARE_NAME];
    prepare_name_done(name, piece);
    return output_read_note(p->work, name, &part, sizeof part) &&
           has_size(p, piece, ".bin", part.tokens * manifest_width(p->vocabulary.size)) &&
           (p->plan.kind != DATA_LM1B || has_size(p, piece, ".idx", (part.sentences + 1) * (int64_t)sizeof(uint32_t)));
}

enum status prepare_encode(struct preparation *p) {
    struct work work = {.p = p, .name = "encoding", .run = encode};
    TRY(load_vocabulary(p));
    for (int64_t i = 0; i < p->plan.n_pieces; ++i)
        work_add(&work, (struct unit){.piece = i, .kept = is_done(p, &p->plan.pieces[i])});
    return work_run(&work);
}
