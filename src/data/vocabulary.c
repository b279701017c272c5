#include "data/vocabulary.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { LINE_FEED = '\n' };

void vocabulary_from_bytes(struct vocabulary *vocabulary, const bool seen[256]) {
    *vocabulary = (struct vocabulary){.bytes = true, .unknown = -1, .end = -1};
    for (int byte = 0; byte < 256; ++byte) {
        vocabulary->symbol_of[byte] = seen[byte] ? (int16_t)vocabulary->size : -1;
        if (seen[byte]) vocabulary->byte_of[vocabulary->size++] = (uint8_t)byte;
    }
}

static int64_t count_lines(const char *text, int64_t length) {
    int64_t lines = 0;
    for (int64_t i = 0; i < length; ++i) lines += text[i] == LINE_FEED;
    return lines;
}

static int64_t first_slot(const struct vocabulary *v, const char *word, int64_t length) {
    return (int64_t)(XXH3_64bits(word, (size_t)length) & (uint64_t)(v->n_slots - 1));
}

/* The slot of the word, or the empty one where it belongs. */
static int32_t *slot_of(const struct vocabulary *v, const char *word, int64_t length) {
    for (int64_t slot = first_slot(v, word, length);; slot = (slot + 1) & (v->n_slots - 1)) {
        int32_t symbol = v->slots[slot];
        if (symbol < 0) return &v->slots[slot];
        if (v->offset[symbol + 1] - v->offset[symbol] == length &&
            !memcmp(v->words + v->offset[symbol], word, (size_t)length))
            return &v->slots[slot];
    }
}

static enum status add_word(struct vocabulary *v, const char *word, int64_t length, const char *source) {
    long long line = (long long)v->size + 1;
    if (!length) return status_fail(STATUS_DATA, "%s:%lld: expected a word, found an empty line", source, line);
    int32_t *slot = slot_of(v, word, length);
    if (*slot >= 0)
        return status_fail(STATUS_DATA, "%s:%lld: expected a new word, found '%.*s' of line %d again", source, line,
                           length < 100 ? (int)length : 100, word, *slot + 1);
    *slot = (int32_t)v->size;
    memcpy(v->words + v->offset[v->size], word, (size_t)length);
    v->offset[v->size + 1] = v->offset[v->size] + length;
    v->size++;
    return STATUS_OK;
}

/* The one that stands first, should there be both. */
static int32_t first_of(const struct vocabulary *v, const char *a, const char *b) {
    int32_t x = vocabulary_find(v, a, (int64_t)strlen(a)), y = vocabulary_find(v, b, (int64_t)strlen(b));
    return x < 0 || (y >= 0 && y < x) ? y : x;
}

static enum status fill(struct vocabulary *v, const char *text, int64_t length, const char *source) {
    for (const char *at = text, *end = text + length; at < end;) {
        const char *feed = memchr(at, LINE_FEED, (size_t)(end - at));
        if (!feed)
            return status_fail(STATUS_DATA, "%s:%lld: expected a line feed at the end, found none", source,
                               (long long)v->size + 1);
        TRY(add_word(v, at, feed - at, source));
        at = feed + 1;
    }
    v->unknown = first_of(v, "<unk>", "<UNK>");
    v->end = first_of(v, "<eos>", "<S>");
    return STATUS_OK;
}

enum status vocabulary_from_words(struct vocabulary *vocabulary, const char *text, int64_t length, const char *source) {
    int64_t n = count_lines(text, length);
    struct vocabulary v = {.n_slots = 2, .unknown = -1, .end = -1};
    *vocabulary = (struct vocabulary){0};
    if (n < 1 || n > INT32_MAX - 1)
        return status_fail(STATUS_DATA, "%s: expected 1 to %d words, a line each, found %lld", source, INT32_MAX - 1,
                           (long long)n);
    while (v.n_slots < 2 * n) v.n_slots *= 2;
    v.words = malloc((size_t)length);
    v.offset = calloc((size_t)n + 1, sizeof *v.offset);
    v.slots = malloc((size_t)v.n_slots * sizeof *v.slots);
    if (!v.words || !v.offset || !v.slots) {
        vocabulary_free(&v);
        return status_fail(STATUS_INTERNAL, "%s: out of memory for %lld words", source, (long long)n);
    }
    memset(v.slots, -1, (size_t)v.n_slots * sizeof *v.slots);
    enum status status = fill(&v, text, length, source);
    if (status)
        vocabulary_free(&v);
    else
        *vocabulary = v;
    return status;
}

void vocabulary_free(struct vocabulary *vocabulary) {
    free(vocabulary->words);
    free(vocabulary->offset);
    free(vocabulary->slots);
    *vocabulary = (struct vocabulary){0};
}

int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *word, int64_t length) {
    if (vocabulary->bytes) return length == 1 ? vocabulary->symbol_of[(uint8_t)*word] : -1;
    return vocabulary->slots && vocabulary->offset ? *slot_of(vocabulary, word, length) : -1;
}

const char *vocabulary_symbol(const struct vocabulary *vocabulary, int64_t symbol, int64_t *length) {
    if (vocabulary->bytes) {
        *length = 1;
        return (const char *)&vocabulary->byte_of[symbol];
    }
    *length = vocabulary->offset[symbol + 1] - vocabulary->offset[symbol];
    return vocabulary->words + vocabulary->offset[symbol];
}

bool vocabulary_same(const struct vocabulary *a, const struct vocabulary *b) {
    if (a->size != b->size || a->bytes != b->bytes) return false;
    if (a->bytes) return !memcmp(a->byte_of, b->byte_of, (size_t)a->size);
    return !memcmp(a->offset, b->offset, (size_t)(a->size + 1) * sizeof *a->offset) &&
           !memcmp(a->words, b->words, (size_t)a->offset[a->size]);
}
