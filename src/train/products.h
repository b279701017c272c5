/* The matrix products of a step by shape, and the same products timed alone on the CPU: the floor that a step's time is
 * held against there. */
#ifndef VQMOE_PRODUCTS_H
#define VQMOE_PRODUCTS_H

#include <stdbool.h>
#include <stdint.h>

struct product {
    bool transpose_a, transpose_b;
    bool adds;     /* beta is not 0 */
    bool exact;    /* factors are not rounded */
    bool parallel; /* on the CPU each thread makes its own */
    int64_t N, O, I, lda, ldb, ldc;
    int64_t calls;
    double seconds; /* of one call, once timed; with all threads at work */
};

struct products {
    struct product *list;
    int64_t count, room;
};

/* So many calls more of it. */
void products_add(struct products *products, const struct product *product);
/* Times each alone, on all threads of this rank: the CPU's products, with plain `ops`. */
void products_time(struct products *products);
double product_operations(const struct product *product);    /* multiplications and additions, of all calls */
double products_operations(const struct products *products); /* of all */
double products_seconds(const struct products *products);    /* all calls at the rates measured alone: the floor */
void products_free(struct products *products);

#endif
