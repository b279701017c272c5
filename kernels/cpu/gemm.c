/* Matrix products: oneDNN in float (faster on this model's shapes, docs/performance.md), OpenBLAS in double, or where
 * it is built with -DMATRIX=openblas.
 *
 * bf16 rounds both factors into scratch of the thread that asks, packed. Where the processor multiplies bf16 (and
 * oneDNN is there to tell it) they are 16 bits wide; elsewhere they stay floats, for the float product. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "kernels/cpu/cpu.h"

static enum precision precision;

static void scale_matrix(double beta, real *c, int64_t ldc, int64_t N, int64_t O) {
    for (int64_t n = 0; n < N; ++n)
        for (int64_t o = 0; o < O; ++o) c[n * ldc + o] = beta == 0 ? 0 : (real)beta * c[n * ldc + o];
}

#if defined(REAL_DOUBLE) || defined(MATRIX_OPENBLAS)
#include <cblas.h>
#undef I /* complex.h claims the letter */

#ifdef REAL_DOUBLE
#define CBLAS_GEMM cblas_dgemm
#else
#define CBLAS_GEMM cblas_sgemm
#endif

static void multiply(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
                     const real *b, int64_t ldb, double beta, real *c, int64_t ldc) {
    CHECK(N <= INT32_MAX && O <= INT32_MAX && I <= INT32_MAX);
    CBLAS_GEMM(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (int)N, (int)O, (int)I,
               (real)alpha, a, (int)lda, b, (int)ldb, (real)beta, c, (int)ldc);
}

const char *ops_library(void) { return openblas_get_config(); }
#else
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>

static void multiply(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
                     const real *b, int64_t ldb, double beta, real *c, int64_t ldc) {
    dnnl_status_t status =
        dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', N, O, I, (float)alpha, a, lda, b, ldb, (float)beta, c, ldc);
    if (status != dnnl_success)
        FATAL("dnnl_sgemm(%ld, %ld, %ld) failed with %d", (long)N, (long)O, (long)I, (int)status);
}

const char *ops_library(void) {
    static char name[64];
    const dnnl_version_t *version = dnnl_version();
    snprintf(name, sizeof name, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
    return name;
}
#endif

#ifndef REAL_DOUBLE
/* The upper half of the nearest float that has nothing in the lower one, ties to even; a NaN stays one. */
static inline uint16_t bf16_of(float x) {
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    uint32_t nearest = (word + 0x7FFF + (word >> 16 & 1)) >> 16;
    return (uint16_t)((word & 0x7FFFFFFF) > 0x7F800000 ? word >> 16 | 0x40 : nearest);
}

static inline float rounded(float x) {
    uint32_t word = (uint32_t)bf16_of(x) << 16;
    memcpy(&x, &word, sizeof word);
    return x;
}

/* Attention multiplies on all threads at once. */
static _Thread_local struct {
    void *data;
    size_t size;
} packed;

static void *take_packed(size_t bytes) {
    if (packed.size >= bytes) return packed.data;
    free(packed.data);
    packed.size = (bytes + 4095) / 4096 * 4096;
    if (!(packed.data = aligned_alloc(64, packed.size))) FATAL("out of memory: %zu bytes of factors", packed.size);
    return packed.data;
}

/* Its rows as they lie in memory. */
struct factor {
    const real *from;
    int64_t stride, rows, columns;
};

static void round_to_floats(float *to, const struct factor *f) {
#pragma omp parallel for schedule(static) if (f->rows * f->columns > PARALLEL_MIN)
    for (int64_t n = 0; n < f->rows; ++n) {
        const real *row = f->from + n * f->stride;
#pragma omp simd
        for (int64_t i = 0; i < f->columns; ++i) to[n * f->columns + i] = rounded(row[i]);
    }
}

static void multiply_floats(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const struct factor *a,
                            const struct factor *b, double beta, real *c, int64_t ldc) {
    float *a_floats = take_packed((size_t)((N + O) * I) * sizeof *a_floats), *b_floats = a_floats + N * I;
    round_to_floats(a_floats, a);
    round_to_floats(b_floats, b);
    multiply(ta, tb, N, O, I, alpha, a_floats, a->columns, b_floats, b->columns, beta, c, ldc);
}

#ifndef MATRIX_OPENBLAS
static void check(dnnl_status_t status, const char *call) {
    if (status != dnnl_success) FATAL("%s failed with %d", call, (int)status);
}
#define DNNL(call) check(call, #call)

static dnnl_engine_t engine; /* NULL: the processor doesn't multiply bf16 */

static void find_instructions(void) {
    bool there = (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
    if (there && !engine) DNNL(dnnl_engine_create(&engine, dnnl_cpu, 0));
}

/* What one thread multiplies with: primitives for any shape, by what is transposed and whether C is added to. */
static _Thread_local struct {
    dnnl_stream_t stream;
    dnnl_primitive_t product[2][2][2];
} own;

static void describe(dnnl_memory_desc_t *memory, dnnl_data_type_t type, bool transpose, int64_t rows, int64_t columns,
                     int64_t stride) {
    dnnl_dims_t dims = {rows, columns}, strides = {transpose ? 1 : stride, transpose ? stride : 1};
    DNNL(dnnl_memory_desc_init_by_strides(memory, 2, dims, type, strides));
}

/* Shapes, strides and alpha come with the call: no slower here than a primitive per shape, and row counts change with
 * every micro-batch. */
static dnnl_primitive_t product_new(bool ta, bool tb, bool add) {
    const int64_t any = DNNL_RUNTIME_DIM_VAL;
    const float any_scale = DNNL_RUNTIME_F32_VAL;
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t post;
    dnnl_primitive_desc_t primitive;
    dnnl_primitive_t product;
    describe(&a, dnnl_bf16, ta, any, any, any);
    describe(&b, dnnl_bf16, tb, any, any, any);
    describe(&c, dnnl_f32, false, any, any, any);
    DNNL(dnnl_matmul_desc_init(&desc, &a, &b, NULL, &c));
    DNNL(dnnl_primitive_attr_create(&attr));
    DNNL(dnnl_post_ops_create(&post));
    if (add) DNNL(dnnl_post_ops_append_sum(post, 1));
    DNNL(dnnl_primitive_attr_set_post_ops(attr, post));
    DNNL(dnnl_primitive_attr_set_output_scales(attr, 1, 0, &any_scale));
    DNNL(dnnl_primitive_desc_create(&primitive, &desc, attr, engine, NULL));
    DNNL(dnnl_primitive_create(&product, primitive));
    DNNL(dnnl_primitive_desc_destroy(primitive));
    DNNL(dnnl_post_ops_destroy(post));
    DNNL(dnnl_primitive_attr_destroy(attr));
    return product;
}

static void round_to_bf16(uint16_t *to, const struct factor *f) {
#pragma omp parallel for schedule(static) if (f->rows * f->columns > PARALLEL_MIN)
    for (int64_t n = 0; n < f->rows; ++n) {
        const real *row = f->from + n * f->stride;
#pragma omp simd
        for (int64_t i = 0; i < f->columns; ++i) to[n * f->columns + i] = bf16_of(row[i]);
    }
}

static void multiply_bf16(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const struct factor *a,
                          const struct factor *b, bool add, real *c, int64_t ldc) {
    enum { A, B, C, SCALE, OPERANDS };
    uint16_t *a_halves = take_packed((size_t)((N + O) * I) * sizeof *a_halves), *b_halves = a_halves + N * I;
    round_to_bf16(a_halves, a);
    round_to_bf16(b_halves, b);
    float scale = (float)alpha;
    dnnl_primitive_t *product = &own.product[ta][tb][add];
    if (!own.stream) DNNL(dnnl_stream_create(&own.stream, engine, dnnl_stream_default_flags));
    if (!*product) *product = product_new(ta, tb, add);
    dnnl_memory_desc_t desc[OPERANDS];
    describe(&desc[A], dnnl_bf16, ta, N, I, a->columns);
    describe(&desc[B], dnnl_bf16, tb, I, O, b->columns);
    describe(&desc[C], dnnl_f32, false, N, O, ldc);
    DNNL(dnnl_memory_desc_init_by_tag(&desc[SCALE], 1, (dnnl_dims_t){1}, dnnl_f32, dnnl_x));
    void *const data[OPERANDS] = {a_halves, b_halves, c, &scale};
    dnnl_exec_arg_t operands[OPERANDS] = {
        {DNNL_ARG_SRC, NULL}, {DNNL_ARG_WEIGHTS, NULL}, {DNNL_ARG_DST, NULL}, {DNNL_ARG_ATTR_OUTPUT_SCALES, NULL}};
    for (int i = 0; i < OPERANDS; ++i) DNNL(dnnl_memory_create(&operands[i].memory, &desc[i], engine, data[i]));
    DNNL(dnnl_primitive_execute(*product, own.stream, OPERANDS, operands));
    DNNL(dnnl_stream_wait(own.stream));
    for (int i = 0; i < OPERANDS; ++i) DNNL(dnnl_memory_destroy(operands[i].memory));
}
#endif

static void multiply_rounded(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a,
                             int64_t lda, const real *b, int64_t ldb, double beta, real *c, int64_t ldc) {
    struct factor factor_a = {a, lda, ta ? I : N, ta ? N : I}, factor_b = {b, ldb, tb ? O : I, tb ? I : O};
#ifndef MATRIX_OPENBLAS
    if (engine) {
        if (beta != 0 && beta != 1) scale_matrix(beta, c, ldc, N, O);
        multiply_bf16(ta, tb, N, O, I, alpha, &factor_a, &factor_b, beta != 0, c, ldc);
        return;
    }
#endif
    multiply_floats(ta, tb, N, O, I, alpha, &factor_a, &factor_b, beta, c, ldc);
}
#endif

void cpu_gemm_start(enum precision wanted) {
    precision = wanted;
#if !defined(REAL_DOUBLE) && !defined(MATRIX_OPENBLAS)
    if (precision == PRECISION_BF16) find_instructions();
#endif
}

void cpu_gemm_exact(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
                    const real *b, int64_t ldb, double beta, real *c, int64_t ldc) {
    if (N > 0 && O > 0 && I > 0)
        multiply(ta, tb, N, O, I, alpha, a, lda, b, ldb, beta, c, ldc);
    else
        scale_matrix(beta, c, ldc, N, O);
}

void cpu_gemm(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
              const real *b, int64_t ldb, double beta, real *c, int64_t ldc) {
#ifndef REAL_DOUBLE
    if (precision == PRECISION_BF16 && N > 0 && O > 0 && I > 0) {
        multiply_rounded(ta, tb, N, O, I, alpha, a, lda, b, ldb, beta, c, ldc);
        return;
    }
#endif
    cpu_gemm_exact(ta, tb, N, O, I, alpha, a, lda, b, ldb, beta, c, ldc);
}

/* Many small ones: a thread for each. A single one may have all threads. */
static void gemm_batched(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
                         int64_t stride_a, const real *b, int64_t ldb, int64_t stride_b, double beta, real *c,
                         int64_t ldc, int64_t stride_c, int64_t count) {
#pragma omp parallel for schedule(static) if (count > 1)
    for (int64_t i = 0; i < count; ++i)
        cpu_gemm(ta, tb, N, O, I, alpha, a + i * stride_a, lda, b + i * stride_b, ldb, beta, c + i * stride_c, ldc);
}

void cpu_gemm_ops(struct ops *table) {
    table->gemm = cpu_gemm;
    table->gemm_batched = gemm_batched;
}
