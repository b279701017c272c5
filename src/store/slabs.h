/* Checksums of a file (docs/checkpoint-format.md). */
#ifndef VQMOE_SLABS_H
#define VQMOE_SLABS_H

#include "store/h5.h"

#define SLABS_NAME "/checksums"
enum { SLAB_BYTES = 1 << 20, SLAB_COLUMNS = 3 };

/* A row of the table; offset -1: all that no array holds. */
struct slab {
    int64_t offset, bytes;
    uint64_t sum;
};
_Static_assert(sizeof(struct slab) == SLAB_COLUMNS * sizeof(int64_t),
               "rows of the table are read and written as they are");

/* The first row of a file laid out as contents says. Returns 0, or the errno of a read that failed. */
int slabs_sum_rest(int fd, const struct h5_contents *contents, struct slab *rest);

/* Whether slabs [n], in any order, are those of these contents: every array's bytes (but the table's own) once, none
 * else. Sorts them by offset. STATUS_CHECKPOINT, naming the array. */
enum status slabs_check(const char *path, const struct h5_contents *contents, struct slab *slabs, int64_t n);

#endif
