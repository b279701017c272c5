#include "data/permutation.h"

#include "base/hash.h"

struct permutation permutation_of(uint64_t seed, uint64_t stream, int64_t n) {
    struct permutation permutation = {.n = n, .half = 1};
    while ((int64_t)1 << 2 * permutation.half < n) ++permutation.half;
    uint64_t key = hash_splitmix64(hash_splitmix64(seed) ^ stream);
    for (int r = 0; r < PERMUTATION_ROUNDS; ++r) permutation.keys[r] = key = hash_splitmix64(key);
    return permutation;
}

/* One to one over 2^(2 half) numbers, fewer than 4 n of them (or 4). */
static uint64_t network(const struct permutation *permutation, uint64_t x) {
    uint64_t mask = ((uint64_t)1 << permutation->half) - 1, left = x >> permutation->half, right = x & mask;
    for (int r = 0; r < PERMUTATION_ROUNDS; ++r) {
        uint64_t next = left ^ (hash_splitmix64(right ^ permutation->keys[r]) & mask);
        left = right;
        right = next;
    }
    return left << permutation->half | right;
}

int64_t permutation_at(const struct permutation *permutation, int64_t i) {
    uint64_t x = (uint64_t)i;
    do x = network(permutation, x);
    while (x >= (uint64_t)permutation->n);
    return (int64_t)x;
}
