/* Small integer hashes. */
#ifndef VQMOE_HASH_H
#define VQMOE_HASH_H

#include <stdint.h>

/* SplitMix64's output function (Steele, Lea, Flood 2014). */
static inline uint64_t hash_splitmix64(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

/* FNV-1a, 32 bits. */
static inline uint32_t hash_string(const char *s) {
    uint32_t h = 2166136261u;
    for (; *s; ++s) h = (h ^ (unsigned char)*s) * 16777619u;
    return h;
}

#endif
