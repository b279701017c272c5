#include "data/noise.h"

#include <stdlib.h>

#include "base/rng.h"

enum { SWAP, DROP, INSERT, OPERATIONS };

/* The bytes that are symbols, `bytes` [symbols]. */
static void copy_symbols(const struct text *text, const struct text_split *split, uint8_t *bytes) {
    for (int64_t at = 0; at < split->size; at++)
        if (text->symbol_of[split->bytes[at]] >= 0) *bytes++ = split->bytes[at];
}

/* in [n] to out, which has room for 2 n; returns how many. `in` may be the second half of out: after i places at most
 * 2 i <= n + i bytes are written. */
static int64_t apply(uint8_t *out, uint8_t *in, int64_t n, const struct text *text, double rate, int64_t seed) {
    const uint32_t limit = (uint32_t)(rate * 0x1p32);
    int64_t written = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t words[4];
        rng_words(words, rng_place((uint64_t)seed, i >> 32, RNG_NOISE, 0, 0), (uint32_t)i, 0);
        uint8_t symbol = in[i];
        int operation = words[0] < limit ? (int)((uint64_t)words[1] * OPERATIONS >> 32) : OPERATIONS;
        if (operation == DROP) continue;
        if (operation == INSERT) out[written++] = text->byte_of[(uint64_t)words[2] * (uint64_t)text->vocabulary >> 32];
        if (operation == SWAP && i + 1 < n) {
            symbol = in[i + 1];
            in[i + 1] = in[i];
        }
        out[written++] = symbol;
    }
    return written;
}

enum status noise_split(struct text *text, enum split split, double rate, int64_t seed) {
    struct text_split *source = &text->splits[split];
    int64_t n = source->symbols;
    uint8_t *noised = malloc((size_t)(2 * n + 1));
    if (!noised) return status_fail(STATUS_INTERNAL, "%s: out of memory", source->path);
    copy_symbols(text, source, noised + n);
    n = apply(noised, noised + n, n, text, rate, seed);
    free(source->block_symbols);
    free(source->noised);
    *source = (struct text_split){.path = source->path, .bytes = noised, .noised = noised, .size = n, .symbols = n};
    return STATUS_OK;
}
