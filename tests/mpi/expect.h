/* For the tests of comm: expectations, and what each rank holds as a function of rank and index, so that every rank can
 * say what all others sent. No assertion leaves a function: one rank that stopped would strand its peers. Failures are
 * counted, and agreed on at the end. */
#ifndef TESTS_MPI_EXPECT_H
#define TESTS_MPI_EXPECT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

static int failures, world_rank;
static const char *part; /* which group is tested: all ranks, or one half */

#define EXPECT(condition) ((condition) ? (void)0 : failed(__FILE__, __LINE__, #condition))
static inline void failed(const char *file, int line, const char *condition) {
    if (++failures <= 20) fprintf(stderr, "%s:%d: rank %d (%s): %s\n", file, line, world_rank, part, condition);
}

static inline void *take(size_t bytes) {
    void *data = malloc(bytes + 1);
    if (!data) abort();
    memset(data, 0xA5, bytes + 1);
    return data;
}

static inline int64_t number(int64_t a, int64_t b, int64_t c, int64_t below) {
    return (int64_t)(hash_splitmix64((uint64_t)(a * 1000003 + b * 1009 + c)) % (uint64_t)below);
}

/* What a rank contributes at an index: whole numbers, whose sums are exact in every type. */
static inline int64_t value_of(int rank, int64_t i) { return number(rank, i, 1, 2001) - 1000; }

#endif
