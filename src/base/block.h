/* Contiguous blocks: `total` things over `parts`, the first `total mod parts` parts have one more. Experts and batch
 * rows alike. */
#ifndef VQMOE_BLOCK_H
#define VQMOE_BLOCK_H

#include <stdint.h>

static inline int64_t block_first(int64_t total, int64_t parts, int64_t part) {
    int64_t more = total % parts;
    return part * (total / parts) + (part < more ? part : more);
}

static inline int64_t block_count(int64_t total, int64_t parts, int64_t part) {
    return total / parts + (part < total % parts);
}

#endif
