#include "data/counts.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/log.h"
#include "data/text.h"
#include "data/words.h"

struct entry {
    const char *word;
    uint32_t length, hash;
    int64_t count, first; /* first: number of the word in the piece */
};

struct counts {
    struct entry *entries; /* [n] in order of occurrence */
    int64_t n, room;
    int32_t *slots; /* [n_slots] of entries, -1 empty */
    int64_t n_slots;
    int64_t words; /* seen */
};

/* What stands before each word in a file. */
struct record {
    int64_t count, first, length;
};

/* ---- Of a piece ---- */

static void widen(struct counts *c) {
    c->n_slots = c->n_slots ? 2 * c->n_slots : 1 << 16;
    c->room = c->n_slots / 2;
    free(c->slots);
    c->slots = malloc((size_t)c->n_slots * sizeof *c->slots);
    c->entries = realloc(c->entries, (size_t)c->room * sizeof *c->entries);
    if (!c->slots || !c->entries) FATAL("out of memory");
    memset(c->slots, -1, (size_t)c->n_slots * sizeof *c->slots);
    for (int64_t i = 0; i < c->n; ++i) {
        int64_t slot = c->entries[i].hash & (c->n_slots - 1);
        while (c->slots[slot] >= 0) slot = (slot + 1) & (c->n_slots - 1);
        c->slots[slot] = (int32_t)i;
    }
}

struct counts *counts_new(void) {
    struct counts *c = calloc(1, sizeof *c);
    if (!c) FATAL("out of memory");
    widen(c);
    return c;
}

void counts_free(struct counts *c) {
    free(c->entries);
    free(c->slots);
    free(c);
}

static void add(struct counts *c, const char *word, int64_t length) {
    uint32_t hash = (uint32_t)XXH3_64bits(word, (size_t)length);
    int64_t slot = hash & (c->n_slots - 1), first = c->words++;
    for (; c->slots[slot] >= 0; slot = (slot + 1) & (c->n_slots - 1)) {
        struct entry *e = &c->entries[c->slots[slot]];
        if (e->hash != hash || e->length != length || memcmp(e->word, word, (size_t)length) != 0) continue;
        e->count++;
        return;
    }
    c->slots[slot] = (int32_t)c->n;
    c->entries[c->n++] = (struct entry){word, (uint32_t)length, hash, 1, first};
    if (c->n == c->room) widen(c);
}

void counts_add(struct counts *c, const char *bytes, int64_t n) {
    const char *at = bytes, *word;
    for (int64_t length; at < bytes + n; ++at) { /* over the line feed */
        const char *end = memchr(at, '\n', (size_t)(bytes + n - at));
        if (!end) end = bytes + n;
        while ((word = words_next(&at, end, &length))) add(c, word, length);
    }
}

static int compare(const char *a, int64_t n, const char *b, int64_t m) {
    int order = memcmp(a, b, (size_t)(n < m ? n : m));
    return order ? order : (n > m) - (n < m);
}

static int by_word(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    return compare(x->word, x->length, y->word, y->length);
}

enum status counts_write(struct counts *c, struct output *output) {
    qsort(c->entries, (size_t)c->n, sizeof *c->entries, by_word);
    TRY(output_put(output, &c->n, sizeof c->n)); /* no file is empty */
    for (int64_t i = 0; i < c->n; ++i) {
        const struct entry *e = &c->entries[i];
        struct record record = {e->count, e->first, e->length};
        TRY(output_put(output, &record, sizeof record));
        TRY(output_put(output, e->word, e->length));
    }
    return STATUS_OK;
}

/* ---- Of all ---- */

/* A word that stays. */
struct kept {
    int64_t count, file, first; /* first: in the file's piece */
    int64_t offset, length;     /* of its letters */
};

/* Where a file is at. */
struct cursor {
    const char *at, *end;
    struct record record;
    const char *word;
    uint64_t prefix; /* the word's first eight letters, as a number that sorts alike */
    int64_t file;
};

struct merge {
    struct text_map *maps; /* [n] */
    struct cursor *heap;   /* [n_heap] the least word first */
    int64_t n, n_heap;
    struct kept *kept; /* [n_kept] */
    int64_t n_kept, room;
    char *letters;
    int64_t n_letters, letters_room;
};

/* On to the next word; false: no more. */
static enum status step(struct cursor *c, const char *path, bool *more) {
    unsigned char prefix[8] = {0};
    *more = c->at < c->end;
    if (!*more) return STATUS_OK;
    bool whole = c->end - c->at >= (int64_t)sizeof c->record;
    if (whole) memcpy(&c->record, c->at, sizeof c->record);
    c->word = c->at + sizeof c->record;
    if (!whole || c->record.length < 1 || c->record.length > c->end - c->word)
        return status_fail(STATUS_DATA, "%s: expected counts of words, found something else", path);
    c->at = c->word + c->record.length;
    memcpy(prefix, c->word, (size_t)(c->record.length < 8 ? c->record.length : 8));
    c->prefix = 0;
    for (int i = 0; i < 8; ++i) c->prefix = c->prefix << 8 | prefix[i];
    return STATUS_OK;
}

/* Of equal words the one of the earlier file first. */
static bool is_before(const struct cursor *a, const struct cursor *b) {
    if (a->prefix != b->prefix) return a->prefix < b->prefix;
    int order = compare(a->word, a->record.length, b->word, b->record.length);
    return order ? order < 0 : a->file < b->file;
}

static void sink(struct merge *m, int64_t i) {
    for (int64_t child; (child = 2 * i + 1) < m->n_heap; i = child) {
        if (child + 1 < m->n_heap && is_before(&m->heap[child + 1], &m->heap[child])) ++child;
        if (!is_before(&m->heap[child], &m->heap[i])) return;
        struct cursor swap = m->heap[i];
        m->heap[i] = m->heap[child];
        m->heap[child] = swap;
    }
}

static void keep(struct merge *m, const struct cursor *one, int64_t count) {
    int64_t length = one->record.length;
    if (m->n_kept == m->room) {
        m->room = 2 * m->room + 1024;
        m->kept = realloc(m->kept, (size_t)m->room * sizeof *m->kept);
    }
    if (m->n_letters + length > m->letters_room) {
        m->letters_room = 2 * m->letters_room + length + 1024;
        m->letters = realloc(m->letters, (size_t)m->letters_room);
    }
    if (!m->kept || !m->letters) FATAL("out of memory");
    memcpy(m->letters + m->n_letters, one->word, (size_t)length);
    m->kept[m->n_kept++] = (struct kept){count, one->file, one->record.first, m->n_letters, length};
    m->n_letters += length;
}

static bool is_one_of(const struct cursor *one, const char *const *except) {
    for (; *except; ++except)
        if (!compare(one->word, one->record.length, *except, (int64_t)strlen(*except))) return true;
    return false;
}

static bool same_word(const struct cursor *a, const struct cursor *b) {
    return a->prefix == b->prefix && !compare(a->word, a->record.length, b->word, b->record.length);
}

static enum status merge_all(struct merge *m, const char *const *paths, int64_t min_count, const char *const *except) {
    for (int64_t i = m->n_heap / 2; i-- > 0;) sink(m, i);
    while (m->n_heap) {
        struct cursor one = m->heap[0]; /* where it occurred first */
        int64_t count = 0;
        while (m->n_heap && same_word(&one, &m->heap[0])) {
            bool more;
            count += m->heap[0].record.count;
            TRY(step(&m->heap[0], paths[m->heap[0].file], &more));
            if (!more) m->heap[0] = m->heap[--m->n_heap];
            sink(m, 0);
        }
        if (count >= min_count && !is_one_of(&one, except)) keep(m, &one, count);
    }
    return STATUS_OK;
}

static int by_count(const void *a, const void *b) {
    const struct kept *x = a, *y = b;
    if (x->count != y->count) return x->count > y->count ? -1 : 1;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    return (x->first > y->first) - (x->first < y->first);
}

static enum status open_files(struct merge *m, const char *const *paths) {
    for (int64_t i = 0; i < m->n; ++i) {
        bool more;
        struct cursor *cursor = &m->heap[m->n_heap];
        TRY(text_map_file(&m->maps[i], "words", paths[i]));
        *cursor = (struct cursor){.at = (const char *)m->maps[i].address + sizeof(int64_t), .file = i};
        cursor->end = (const char *)m->maps[i].address + m->maps[i].size;
        TRY(step(cursor, paths[i], &more));
        m->n_heap += more;
    }
    return STATUS_OK;
}

/* Those kept, in order. */
static void put_lines(struct merge *m, char **lines, int64_t *length) {
    *length = m->n_letters + m->n_kept;
    char *at = *lines = malloc((size_t)*length + 1);
    if (!at) FATAL("out of memory");
    if (m->n_kept) qsort(m->kept, (size_t)m->n_kept, sizeof *m->kept, by_count);
    for (int64_t i = 0; i < m->n_kept; ++i) {
        memcpy(at, m->letters + m->kept[i].offset, (size_t)m->kept[i].length);
        at += m->kept[i].length;
        *at++ = '\n';
    }
}

enum status counts_merge(const char *const *paths, int64_t n, int64_t min_count, const char *const *except,
                         char **lines, int64_t *length) {
    struct merge m = {.n = n};
    m.maps = calloc((size_t)n + 1, sizeof *m.maps);
    m.heap = calloc((size_t)n + 1, sizeof *m.heap);
    if (!m.maps || !m.heap) FATAL("out of memory");
    enum status status = open_files(&m, paths);
    if (!status) status = merge_all(&m, paths, min_count, except);
    if (!status) put_lines(&m, lines, length);
    for (int64_t i = 0; i < n; ++i) text_unmap(&m.maps[i]);
    free(m.maps);
    free(m.heap);
    free(m.kept);
    free(m.letters);
    return status;
}
