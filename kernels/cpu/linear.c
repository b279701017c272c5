/* Layers of weights, one or one per group, by matrix products. */
#include "kernels/cpu/cpu.h"

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

void cpu_linear_ops(struct ops *table) {
    table->linear_forward = linear_forward;
    table->linear_backward = linear_backward;
    table->linear_exact_forward = linear_exact_forward;
    table->linear_exact_backward = linear_exact_backward;
    table->grouped_linear_forward = grouped_linear_forward;
    table->grouped_linear_backward = grouped_linear_backward;
}
