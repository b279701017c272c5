/* Every operation of a step by name: how often, how long on the device, how many bytes and operations at least. A table
 * of operations that stands in front of the device's own takes the times; what an operation calls by itself is part of
 * it.
 *
 * Bytes: each input read once, each output written once, what is added to read and written, from the arguments alone.
 * Rows that ids pick from a table of weights or codes are left out, as nobody knows how many are different; slots that
 * were dropped count like the others. Operations: multiplications and additions of matrix products, attention's by its
 * causal blocks. */
#ifndef VQMOE_OP_TIMES_H
#define VQMOE_OP_TIMES_H

#include <stddef.h>

#include "kernels/ops.h"
#include "train/products.h"

/* The table seen as an array of function pointers, after its name. */
enum { OP_TIMES = (sizeof(struct ops) - offsetof(struct ops, gemm)) / sizeof(void (*)(void)) };

struct op_time {
    const char *name;
    int64_t calls;
    double seconds, bytes, operations;
};

struct op_times {
    struct op_time op[OP_TIMES]; /* all there are */
    struct products products;    /* the same as operations, by shape */
};

/* Between these two every operation of this rank is timed, from nothing. One at a time; `end` waits for the device. */
void op_times_begin(struct op_times *times);
void op_times_end(struct op_times *times);
struct op_time op_times_sum(const struct op_times *times);
void op_times_free(struct op_times *times);

#endif
