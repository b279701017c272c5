/* The last stage of a preparation that all ranks share: pieces become parts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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
        if (!prepare_load(p->work, name, seen, sizeof seen))
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
    TRY(text_map_file(&map, "data.prepared", path));
    enum status status = vocabulary_from_words(&p->vocabulary, map.address, map.size, path);
    text_unmap(&map);
    return status;
}

/* ---- Parts ---- */

/* Bytes become symbols where they stand; dropped ones have none. */
static enum status put_bytes(const struct vocabulary *v, struct load *load, struct output *output,
                             struct manifest_part *part) {
    unsigned char symbols[256], *bytes = (unsigned char *)load->bytes;
    for (int byte = 0; byte < 256; ++byte)
        symbols[byte] = (unsigned char)(v->symbol_of[byte] < 0 ? 0 : v->symbol_of[byte]);
    if (v->symbol_of[LINE_FEED] < 0) { /* absent, or dropped */
        for (int64_t i = 0; i < load->size; ++i) {
            unsigned char byte = bytes[i];
            bytes[part->tokens] = symbols[byte];
            part->tokens += byte != LINE_FEED;
        }
    } else {
        for (int64_t i = 0; i < load->size; ++i) bytes[i] = symbols[bytes[i]];
        part->tokens = load->size;
    }
    return output_write(output, bytes, part->tokens);
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
    if (!status)
        status =
            plan_has_lines(&p->plan) ? put_words(&encoder, load, path) : put_bytes(&p->vocabulary, load, &ids, part);
    status = output_end(&ids, status, &part->sum);
    return sentences ? output_end(&index, status, &part->index) : status;
}

static enum status encode(struct preparation *p, const struct unit *unit, struct load *load) {
    const struct piece *piece = &p->plan.pieces[unit->piece];
    struct manifest_part part = {.bytes = load->size};
    char name[PREPARE_NAME];
    TRY(write_part(p, piece, load, &part));
    prepare_name_done(name, piece);
    return output_file(p->work, name, &part, sizeof part);
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
    return prepare_load(p->work, name, &part, sizeof part) &&
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
