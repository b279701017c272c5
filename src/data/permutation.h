/* A random order of 0 .. n - 1 that nobody stores: a Feistel network over the numbers of an even count of bits, walked
 * until it falls below n. */
#ifndef VQMOE_PERMUTATION_H
#define VQMOE_PERMUTATION_H

#include <stdint.h>

enum { PERMUTATION_ROUNDS = 8 };

struct permutation {
    int64_t n;
    int half; /* bits of each half */
    uint64_t keys[PERMUTATION_ROUNDS];
};

/* n: 1 .. 2^62. Orders of different seeds or streams (an epoch, a window) have nothing to do with each other. */
struct permutation permutation_of(uint64_t seed, uint64_t stream, int64_t n);
/* What stands at place i, 0 <= i < n: each of 0 .. n - 1 at one place. */
int64_t permutation_at(const struct permutation *permutation, int64_t i);

#endif
