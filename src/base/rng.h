/* Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011). A draw is a function of its place, so that it
 * is the same on any number of ranks; docs/step-file.md has the table of places. */
#ifndef VQMOE_RNG_H
#define VQMOE_RNG_H

#include <stdint.h>

#include "base/both.h"

enum rng_site {
    RNG_EMBEDDING = 1,
    RNG_POSITION = 2,
    RNG_ATTENTION = 3,
    RNG_ATTENTION_OUTPUT = 4,
    RNG_EXPERT = 5,
    RNG_MOE_OUTPUT = 6,
    RNG_FINAL = 7,
    RNG_SAMPLE = 8,          /* generation: row = stream, step = position */
    RNG_ANCHOR = 9,          /* online_clustered: row = token, column = code */
    RNG_CLUSTER_SAMPLE = 10, /* cluster: row = sample */
    RNG_CLUSTER_START = 11,  /* cluster: row = centroid */
    RNG_NOISE = 12,          /* eval --noise: row = place in the split */
    RNG_HEAD = 13,           /* of a classifier: row = row of the global batch */
    RNG_INIT = 255,          /* initial values: step = hash of the parameter's name */
};

/* One place in the model at one update: all that a draw depends on but its row and column. */
struct rng_place {
    uint64_t seed;
    uint32_t step;
    uint32_t site; /* site + 256 layer + 65536 lane */
};

static inline struct rng_place rng_place(uint64_t seed, int64_t step, enum rng_site site, int layer, int lane) {
    struct rng_place place = {seed, (uint32_t)step, (uint32_t)site | (uint32_t)layer << 8 | (uint32_t)lane << 16};
    return place;
}

/* Four words for columns 4 quad .. 4 quad + 3 of a row. */
static inline ON_BOTH void rng_words(uint32_t out[4], struct rng_place place, uint32_t row, uint32_t quad) {
    uint32_t c0 = quad, c1 = row, c2 = place.step, c3 = place.site;
    uint32_t k0 = (uint32_t)place.seed, k1 = (uint32_t)(place.seed >> 32);
    for (int round = 0; round < 10; ++round) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* A uniform number in (0, 1), 2^-33 from either end at least. */
static inline ON_BOTH double rng_uniform(uint32_t word) { return (word + 0.5) * 0x1p-32; }

#endif
