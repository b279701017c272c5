/* What the CPU's files share. Each family of operations is a file; ops_table.c gathers them. */
#ifndef VQMOE_CPU_H
#define VQMOE_CPU_H

#include <omp.h>

#include "kernels/ops.h"

/* Below this many elements a parallel region costs more than it saves. */
enum { PARALLEL_MIN = 16384 };

/* Sums over rows into one vector per thread, then over threads in order: the same bits on the same number of threads.
 */
real *partial_take(struct arena *scratch, int64_t n); /* [threads, n], zeroed */
void partial_add(real *out, const real *partial, int64_t n);

/* The library that multiplies, in this precision. */
void cpu_gemm_start(enum precision precision);
/* ops->gemm, and the same without rounding its factors. */
void cpu_gemm(bool transpose_a, bool transpose_b, int64_t N, int64_t O, int64_t I, double alpha, const real *a,
              int64_t lda, const real *b, int64_t ldb, double beta, real *c, int64_t ldc);
void cpu_gemm_exact(bool transpose_a, bool transpose_b, int64_t N, int64_t O, int64_t I, double alpha, const real *a,
                    int64_t lda, const real *b, int64_t ldb, double beta, real *c, int64_t ldc);

/* values[0 .. n) are columns first .. first + n - 1 of one row; in place. */
void dropout_row(real *values, const struct dropout *dropout, uint32_t row, int64_t first, int64_t n);

/* Fills this family's entries of the table. */
void cpu_gemm_ops(struct ops *table);
void cpu_linear_ops(struct ops *table);
void cpu_elementwise_ops(struct ops *table);
void cpu_embedding_ops(struct ops *table);
void cpu_norm_ops(struct ops *table);
void cpu_attention_ops(struct ops *table);
void cpu_softmax_ops(struct ops *table);
void cpu_route_ops(struct ops *table);
void cpu_quantize_ops(struct ops *table);
void cpu_optimizer_ops(struct ops *table);

#endif
