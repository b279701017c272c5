/* Counting the matrix products of a step, and timing the same products alone: the floor that a step's time is held
 * against. */
#ifndef VQMOE_PRODUCTS_H
#define VQMOE_PRODUCTS_H

#include <stdbool.h>
#include <stdint.h>

struct product {
    bool transpose_a, transpose_b, parallel; /* parallel: called by each thread for itself */
    bool adds;                               /* beta is not 0 */
    int64_t N, O, I, lda, ldb, ldc;
    int64_t calls;
    double seconds; /* of one call, once timed; with all threads at work */
};

struct products {
    struct product *list;
    int64_t count, room;
};

/* Between these two every product of this rank is counted. One count at a time. */
void products_count_begin(struct products *products);
void products_count_end(struct products *products);
/* Times each alone, on all threads of this rank. */
void products_time(struct products *products);
double products_operations(const struct products *products); /* multiplications and additions */
double products_seconds(const struct products *products);    /* all calls at the rates measured alone: the floor */
void products_free(struct products *products);

#endif
