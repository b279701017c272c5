/* The last stage of a preparation that all ranks share: pieces become parts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/log.h"
#include "data/bytes.h"
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

/* Bytes become symbols where they stand. */
static enum status put_bytes(const struct preparation *p, struct load *load, struct output *output,
                             struct manifest_part *part) {
    bool seen[256];
    for (int byte = 0; byte < 256; ++byte) seen[byte] = p->vocabulary.symbol_of[byte] >= 0;
    const struct gaps gaps = bytes_gaps(seen);
    for (bool more = true; more;) {
        uint8_t *bytes = (uint8_t *)load->bytes;
        part->bytes += load->size;
        int64_t n = p->plan.newlines == NEWLINES_DROP ? bytes_drop_line_feeds(bytes, load->size) : load->size;
        bytes_close_gaps(bytes, n, &gaps);
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
    struct output ids, index;
    bool sentences = p->plan.kind == DATA_LM1B;
    char name[PART_NAME];
    const char *path = p->plan.sources[p->plan.members[piece->member].source].path;
    struct encoder encoder = {&p->vocabulary, manifest_width(p->vocabulary.size), &ids, sentences ? &index : NULL,
                              part};
    index.fd = -1;
    index.sum = NULL;
    manifest_part_name(name, piece->split, piece->number, ".bin");
    enum status status = output_begin(&ids, p->folder, name);
    manifest_part_name(name, piece->split, piece->number, ".idx");
    if (!status && sentences) status = output_begin(&index, p->folder, name);
    if (!status) status = plan_has_lines(&p->plan) ? put_words(&encoder, load, path) : put_bytes(p, load, &ids, part);
    status = output_end(&ids, status, &part->sum);
    return sentences ? output_end(&index, status, &part->index) : status;
}

static enum status encode(struct preparation *p, const struct unit *unit, struct load *load) {
    if (unit->piece < 0) return prepare_digest(p, unit->source);
    const struct piece *piece = &p->plan.pieces[unit->piece];
    struct manifest_part part = {0};
    char name[PREPARE_NAME];
    TRY(write_part(p, piece, load, &part));
    prepare_name_done(name, piece);
    return output_note(p->work, name, &part, sizeof part);
}

/* The disk has been writing parts all along: all of them at once take less than each when it ends. */
static enum status settle(struct preparation *p, const struct unit *unit) {
    char name[PART_NAME];
    if (unit->piece < 0) return STATUS_OK;
    const struct piece *piece = &p->plan.pieces[unit->piece];
    manifest_part_name(name, piece->split, piece->number, ".bin");
    TRY(output_sync(p->folder, name));
    manifest_part_name(name, piece->split, piece->number, ".idx");
    return p->plan.kind == DATA_LM1B ? output_sync(p->folder, name) : STATUS_OK;
}

/* ---- The stage ---- */

/* Byte by byte: what a machine had not yet on its disk when it failed is made again. */
static bool is_done(const struct preparation *p, const struct piece *piece) {
    struct manifest_part part;
    char name[PREPARE_NAME], bin[PART_NAME], idx[PART_NAME];
    prepare_name_done(name, piece);
    manifest_part_name(bin, piece->split, piece->number, ".bin");
    manifest_part_name(idx, piece->split, piece->number, ".idx");
    return output_read_note(p->work, name, &part, sizeof part) && output_has(p->folder, bin, part.sum) &&
           (p->plan.kind != DATA_LM1B || output_has(p->folder, idx, part.index));
}

enum status prepare_encode(struct preparation *p) {
    struct work work = {.p = p, .name = "encoding", .run = encode, .settle = settle};
    TRY(load_vocabulary(p));
    prepare_list_digests(&work);
    for (int64_t i = 0; i < p->plan.n_pieces; ++i)
        work_add(&work, (struct unit){.piece = i, .kept = is_done(p, &p->plan.pieces[i])});
    return work_run(&work);
}
