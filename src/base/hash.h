/* Small integer hashes. */
#ifndef VQMOE_HASH_H
#define VQMOE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/both.h"

/* SplitMix64's output function (Steele, Lea, Flood 2014). */
static inline ON_BOTH uint64_t hash_splitmix64(uint64_t x) {
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

/* Of any bytes, a word at a time; goes on from `start`. */
static inline uint64_t hash_bytes(const void *bytes, size_t n, uint64_t start) {
    uint64_t hash = start ^ n;
    for (size_t i = 0; i < n; i += sizeof(uint64_t)) {
        uint64_t word = 0;
        memcpy(&word, (const char *)bytes + i, n - i < sizeof word ? n - i : sizeof word);
        hash = hash_splitmix64(hash ^ word);
    }
    return hash;
}

#endif
