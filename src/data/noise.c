#include "data/noise.h"

#include <stdlib.h>

#include "base/rng.h"

enum { SWAP, DROP, INSERT, OPERATIONS, PIECE = 1 << 16 };

static enum status copy_symbols(const struct text *text, enum split split, uint8_t *symbols) {
    static int32_t piece[PIECE];
    int64_t n = text->splits[split].symbols;
    for (int64_t at = 0; at < n; at += PIECE) {
        int64_t count = n - at < PIECE ? n - at : PIECE;
        TRY(text_read(text, split, at, count, piece));
        for (int64_t i = 0; i < count; i++) symbols[at + i] = (uint8_t)piece[i];
    }
    return STATUS_OK;
}

/* in [n] to out, which has room for 2 n; returns how many. `in` may be the second half of out: after i places at most
 * 2 i <= n + i symbols are written. */
static int64_t apply(uint8_t *out, uint8_t *in, int64_t n, int64_t V, double rate, int64_t seed) {
    const uint32_t limit = (uint32_t)(rate * 0x1p32);
    int64_t written = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t words[4];
        rng_words(words, rng_place((uint64_t)seed, i >> 32, RNG_NOISE, 0, 0), (uint32_t)i, 0);
        uint8_t symbol = in[i];
        int operation = words[0] < limit ? (int)((uint64_t)words[1] * OPERATIONS >> 32) : OPERATIONS;
        if (operation == DROP) continue;
        if (operation == INSERT) out[written++] = (uint8_t)((uint64_t)words[2] * (uint64_t)V >> 32);
        if (operation == SWAP && i + 1 < n) {
            symbol = in[i + 1];
            in[i + 1] = in[i];
        }
        out[written++] = symbol;
    }
    return written;
}

static void close_parts(struct text_split *split) {
    for (int64_t i = 0; i < split->n_parts; i++) text_part_close(&split->parts[i]);
    free(split->parts);
}

/* The split is one part now, of symbols as the vocabulary has them. */
static void put_in_place(struct text_split *split, struct text_part *part, uint8_t *noised, int64_t n) {
    *part = (struct text_part){.symbols = n, .ids = noised, .width = 1, .final = true};
    close_parts(split);
    free(split->block_symbols);
    free(split->noised);
    *split = (struct text_split){.path = split->path, .symbols = n, .parts = part, .n_parts = 1, .noised = noised};
}

enum status noise_split(struct text *text, enum split split, double rate, int64_t seed) {
    struct text_split *source = &text->splits[split];
    int64_t n = source->symbols, V = text->vocabulary.size;
    if (!text->vocabulary.bytes)
        return status_fail(STATUS_CONFIG, "--noise: expected a text of bytes, found words (%s)", source->path);
    uint8_t *noised = malloc((size_t)(2 * n + 1));
    struct text_part *part = malloc(sizeof *part);
    enum status status = noised && part ? STATUS_OK : STATUS_INTERNAL;
    if (status) status_fail(status, "%s: out of memory", source->path);
    if (!status) status = copy_symbols(text, split, noised + n);
    if (status) {
        free(noised);
        free(part);
        return status;
    }
    put_in_place(source, part, noised, apply(noised, noised + n, n, V, rate, seed));
    return STATUS_OK;
}
