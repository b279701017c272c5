/* What the tests of operations share.
 *
 * An operation is held against plain loops in double precision, written from kernels/ops.h (the `reference` of a
 * problem). Its backward is held against central differences of that reference, and in the double build of the
 * operation itself too. A case runs on 1 thread, on 2, and on 2 again (on a GPU: twice), from the same random numbers:
 * the bits that it shows to keep_rows and keep_sums are compared.
 *
 * VQMOE_TEST_PRECISION=bf16 runs the same cases with products of rounded factors: the references of those round too,
 * everything else must stay as exact as it was. VQMOE_EMULATION_ORDER says that the GPU is emulated: no large cases. */
#ifndef VQMOE_TEST_CHECK_H
#define VQMOE_TEST_CHECK_H

#include <setjmp.h> /* cmocka.h wants these four before it */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/device.h"
#include "kernels/ops.h"

/* Every entry of the table, by the program that tests it. table_test holds this list against struct ops, and each
 * program fails where it did not call one of its own through RUN or OP. */
/* clang-format off */
#define LINEAR_OPS(X) \
    X(gemm) X(gemm_batched) X(linear_forward) X(linear_backward) X(linear_exact_forward) X(linear_exact_backward) \
    X(grouped_linear_forward) X(grouped_linear_backward)
#define ELEMENTWISE_OPS(X) \
    X(fill) X(copy) X(copy_rows) X(add_rows) X(add) X(add_scaled) X(tanh_forward) X(tanh_backward) X(sum) X(sum_squares) X(all_finite) \
    X(take_column) X(modulo) X(histogram) X(dropout) X(grouped_relu_forward) X(grouped_relu_backward) \
    X(clip_scale) X(adam)
#define EMBEDDING_OPS(X) X(embedding_forward) X(embedding_backward) X(sinusoid)
#define NORM_OPS(X) X(layer_norm_forward) X(layer_norm_backward) X(normalize_rows_forward) X(normalize_rows_backward)
#define ATTENTION_OPS(X) X(attention_forward) X(attention_backward)
#define SOFTMAX_OPS(X) \
    X(cross_entropy_forward) X(cross_entropy_backward) X(cross_entropy_join) X(route_weights_forward) \
    X(route_weights_backward) X(balance_forward) X(balance_loss) X(balance_backward) X(mix_forward) X(mix_backward)
#define ROUTE_OPS(X) \
    X(top_k) X(hash_scores) X(drop_beyond) X(sort_by_expert) X(row_numbers) X(scatter_rows) X(gather_rows) X(combine_forward) X(combine_backward)
#define QUANTIZE_OPS(X) \
    X(nearest_code) X(quantize) X(code_error) X(code_error_backward) X(code_sums) X(anchor_search)
#define ALL_OPS(X) \
    LINEAR_OPS(X) ELEMENTWISE_OPS(X) EMBEDDING_OPS(X) NORM_OPS(X) ATTENTION_OPS(X) SOFTMAX_OPS(X) ROUTE_OPS(X) \
    QUANTIZE_OPS(X)
/* clang-format on */

/* The table seen as an array of function pointers, after its name. */
#define OP_INDEX(entry) ((offsetof(struct ops, entry) - offsetof(struct ops, gemm)) / sizeof(void (*)(void)))
enum { OP_COUNT = (sizeof(struct ops) - offsetof(struct ops, gemm)) / sizeof(void (*)(void)) };
struct op_entry {
    const char *name;
    size_t index;
};
#define OP_ENTRY(entry) {#entry, OP_INDEX(entry)},
extern bool op_called[OP_COUNT];
#define OP(entry) (op_called[OP_INDEX(entry)] = true, ops->entry)
/* Of an operation that returns nothing: done when this is. */
#define RUN(entry, ...) (OP(entry)(__VA_ARGS__), device_finish_all())

/* A row of a program's table: what to run, on which sizes (the run function says which letters). */
struct op_case {
    const char *name;
    void (*run)(const struct op_case *c);
    int64_t size[6];
    double p;   /* of dropout */
    bool flag;  /* a variant of the operation; its run function says which */
    bool large; /* too much for an emulated GPU */
};
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* The whole of a program: its cases, then whether every entry of its family was called. The exit code. */
int run_cases(const char *family, const struct op_case *cases, int n_cases, const struct op_entry *entries,
              int n_entries);
#define RUN_CASES(family, cases, OPS) \
    run_cases(family, cases, COUNT(cases), (const struct op_entry[]){OPS(OP_ENTRY)}, \
              COUNT(((const struct op_entry[]){OPS(OP_ENTRY)})))

/* What the operations run on: one of memory_cpu.c and memory_cuda.c. */
struct test_device {
    bool threads; /* it has them, in a number that start gives */
    double tolerance, tolerance_gradient;
    void (*start)(int threads, enum precision precision); /* again and again */
    void *(*take)(size_t bytes);                          /* for both sides to read and write */
    void (*give)(void *memory);
};
extern const struct test_device test_device;

/* Both factors of a product, in a reference: rounded to the precision of this run. */
enum precision test_precision(void);
double factor(double x);

/* Memory of a case, freed after it; its end is guarded. */
void *take(int64_t bytes);
#define TAKE(type, count) ((type *)take((count) * (int64_t)sizeof(type)))
extern struct arena scratch;

/* Random numbers, the same in every run of a case. */
uint64_t random_word(void);
double random_value(void); /* mean 0, variance 1, exact in float */
int64_t random_below(int64_t n);
double *random_doubles(int64_t n);
real *random_reals(int64_t n);
int32_t *random_ids(int64_t n, int64_t below);
int64_t *random_permutation(int64_t n);
void random_groups(int64_t *begin, int64_t N, int64_t count); /* [count + 1]; of three or more some are empty */
real *reals(const double *values, int64_t n);

/* Philox4x32-10 as docs/step-file.md has it, and what dropout multiplies an element by. */
uint32_t philox_word(struct rng_place place, uint32_t row, uint32_t column);
double dropout_factor(const struct dropout *dropout, int64_t row, int64_t column);
struct dropout some_dropout(double p); /* at a place where every part of seed, step and site counts */

/* The same bits on 1 and 2 threads and twice; the same bits twice. */
void keep_rows(const void *data, int64_t bytes);
void keep_sums(const void *data, int64_t bytes);
#define KEEP_ROWS(array, n) keep_rows(array, (n) * (int64_t)sizeof *(array))
#define KEEP_SUMS(array, n) keep_sums(array, (n) * (int64_t)sizeof *(array))

#define TOLERANCE test_device.tolerance
/* Relative L2; where what is expected is nearly zero, relative to 0.01 per element. */
void expect_close(const char *what, const real *got, const double *expected, int64_t n, double tolerance);

/* An input by which the result is differentiated: in double for the reference, as real for the operation, and the
 * gradient. */
enum {
    ADDS = 1 /* the backward adds to it, rather than overwriting */,
    ROWS = 2 /* the same bits on 1 and 2 threads */
};
struct tensor {
    const char *name;
    int64_t n;
    double *x;
    real *r, *g;
    int flags;
};

/* An operation with a forward and a backward. The loss is dout . out. */
struct problem {
    const struct op_case *c;
    void (*reference)(double *out, const struct problem *p);
    void (*forward)(real *out, const struct problem *p);
    void (*backward)(const struct problem *p); /* from out, dout and what forward saved, into in[].g */
    /* [in[i].n], of a product: rounding has no differences, so that a bf16 run takes this instead. Else NULL. */
    void (*gradient)(double *g, const struct problem *p, int i);
    double tolerance; /* 0: the device's */
    int64_t outputs;
    int flags; /* ROWS: of the result */
    int inputs;
    struct tensor in[6];
    real *out, *dout; /* dout: random unless given */
    real *saved;      /* whatever forward leaves for backward */
    int32_t *ids;
    int64_t *index;
    struct dropout dropout;
};
void problem_input(struct problem *p, const char *name, int64_t n, int flags);
void check_problem(struct problem *p);

#endif
