/* A file of every type and rank, whose rows any number of ranks puts and reads: what stands where is a function of the
 * array and the index alone. */
#ifndef TESTS_STORE_SAMPLE_H
#define TESTS_STORE_SAMPLE_H

#include <stdbool.h>

#include "store/archive.h"
#include "store/snapshot.h"

struct sample_array {
    const char *name;
    enum h5_type type;
    int rank;
    int64_t shape[H5_MAX_RANK];
};
enum { SAMPLE_ARRAYS = 9 };
extern const struct sample_array sample_arrays[SAMPLE_ARRAYS];

/* Part `part` of `parts` of each array; the parts are uneven, some empty, in other places in each array. */
void sample_part(int array, int part, int parts, int64_t *first, int64_t *count);
/* Attributes too. seed: other values. */
void sample_put(struct snapshot *snapshot, int part, int parts, int seed);
/* Rows of a part as they are stored, or in the other width of floats. Says what is wrong, in one line; NULL: nothing.
 */
const char *sample_check(struct archive *archive, int part, int parts, int seed, bool other_width);

/* All of a file; the caller frees it. */
char *sample_bytes(const char *path, size_t *size);

#endif
