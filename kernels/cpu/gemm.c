/* Matrix products: oneDNN in float (faster on this model's shapes, docs/performance.md), OpenBLAS in double, or where
 * it is built with -DMATRIX=openblas. */
#include "base/log.h"
#include "kernels/cpu/cpu.h"

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

void cpu_gemm_exact(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
                    const real *b, int64_t ldb, double beta, real *c, int64_t ldc) {
    if (N > 0 && O > 0 && I > 0)
        multiply(ta, tb, N, O, I, alpha, a, lda, b, ldb, beta, c, ldc);
    else
        for (int64_t n = 0; n < N; ++n)
            for (int64_t o = 0; o < O; ++o) c[n * ldc + o] = beta == 0 ? 0 : (real)beta * c[n * ldc + o];
}

void cpu_gemm(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
              const real *b, int64_t ldb, double beta, real *c, int64_t ldc) {
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

typedef void product(bool, bool, int64_t, int64_t, int64_t, double, const real *, int64_t, const real *, int64_t,
                     double, real *, int64_t);

static void forward(product *gemm, real *out, const real *in, const real *weight, const real *bias, int64_t N,
                    int64_t O, int64_t I) {
    gemm(false, true, N, O, I, 1, in, I, weight, I, 0, out, O);
    if (!bias) return;
#pragma omp parallel for schedule(static) if (N * O > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n)
        for (int64_t o = 0; o < O; ++o) out[n * O + o] += bias[o];
}

static void backward(product *gemm, real *din, bool add_din, real *dweight, real *dbias, const real *dout,
                     const real *in, const real *weight, int64_t N, int64_t O, int64_t I) {
    if (din) gemm(false, false, N, I, O, 1, dout, O, weight, I, add_din ? 1 : 0, din, I);
    if (dweight) gemm(true, false, O, I, N, 1, dout, O, in, I, 1, dweight, I);
    if (!dbias) return;
#pragma omp parallel for schedule(static) if (N * O > PARALLEL_MIN)
    for (int64_t block = 0; block < (O + 15) / 16; ++block) { /* a thread owns columns: no two add to one sum */
        int64_t first = block * 16, end = first + 16 < O ? first + 16 : O;
        for (int64_t n = 0; n < N; ++n)
            for (int64_t o = first; o < end; ++o) dbias[o] += dout[n * O + o];
    }
}

static void linear_forward(real *out, const real *in, const real *weight, const real *bias, int64_t N, int64_t O,
                           int64_t I) {
    forward(cpu_gemm, out, in, weight, bias, N, O, I);
}

static void linear_backward(real *din, bool add_din, real *dweight, real *dbias, const real *dout, const real *in,
                            const real *weight, int64_t N, int64_t O, int64_t I) {
    backward(cpu_gemm, din, add_din, dweight, dbias, dout, in, weight, N, O, I);
}

static void linear_exact_forward(real *out, const real *in, const real *weight, const real *bias, int64_t N, int64_t O,
                                 int64_t I) {
    forward(cpu_gemm_exact, out, in, weight, bias, N, O, I);
}

static void linear_exact_backward(real *din, bool add_din, real *dweight, real *dbias, const real *dout, const real *in,
                                  const real *weight, int64_t N, int64_t O, int64_t I) {
    backward(cpu_gemm_exact, din, add_din, dweight, dbias, dout, in, weight, N, O, I);
}

static void grouped_linear_forward(real *out, const real *in, const real *weight, const real *bias,
                                   const struct groups *groups, int64_t O, int64_t I) {
    for (int64_t i = 0; i < groups->count; ++i) {
        int64_t at = groups->begin[i];
        forward(cpu_gemm, out + at * O, in + at * I, weight + i * O * I, bias ? bias + i * O : NULL,
                groups->begin[i + 1] - at, O, I);
    }
}

static void grouped_linear_backward(real *din, real *dweight, real *dbias, const real *dout, const real *in,
                                    const real *weight, const struct groups *groups, int64_t O, int64_t I) {
    for (int64_t i = 0; i < groups->count; ++i) {
        int64_t at = groups->begin[i], N = groups->begin[i + 1] - at;
        if (!N) continue;
        backward(cpu_gemm, din ? din + at * I : NULL, false, dweight ? dweight + i * O * I : NULL,
                 dbias ? dbias + i * O : NULL, dout + at * O, in + at * I, weight + i * O * I, N, O, I);
    }
}

void cpu_gemm_ops(struct ops *table) {
    table->gemm = cpu_gemm;
    table->gemm_batched = gemm_batched;
    table->linear_forward = linear_forward;
    table->linear_backward = linear_backward;
    table->linear_exact_forward = linear_exact_forward;
    table->linear_exact_backward = linear_exact_backward;
    table->grouped_linear_forward = grouped_linear_forward;
    table->grouped_linear_backward = grouped_linear_backward;
}
