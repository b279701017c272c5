#include <math.h>

#include "kernels/cpu/cpu.h"

static const double epsilon = 1e-5;

static void layer_norm_forward(real *out, real *stats, const real *in, const real *weight, const real *bias, int64_t N,
                               int64_t D) {
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        const real *x = in + n * D;
        real *y = out + n * D;
        real sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < D; ++i) sum += x[i];
        real mean = sum / (real)D;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < D; ++i) squares += (x[i] - mean) * (x[i] - mean);
        real rstd = (real)(1 / sqrt((double)squares / (double)D + epsilon));
        for (int64_t i = 0; i < D; ++i) y[i] = (x[i] - mean) * rstd * weight[i] + bias[i];
        stats[2 * n] = mean;
        stats[2 * n + 1] = rstd;
    }
}

/* With xhat = (x - mean) rstd and dx = dout weight: din = rstd (dx - mean(dx) - xhat mean(dx xhat)). */
static void layer_norm_backward(real *din, real *dweight, real *dbias, const real *dout, const real *in,
                                const real *stats, const real *weight, struct arena *scratch, int64_t N, int64_t D) {
    struct arena_mark mark = arena_mark(scratch);
    real *dweights = partial_take(scratch, D), *dbiases = partial_take(scratch, D);
#pragma omp parallel
    {
        real *dw = dweights + omp_get_thread_num() * D, *db = dbiases + omp_get_thread_num() * D;
#pragma omp for schedule(static)
        for (int64_t n = 0; n < N; ++n) {
            const real *x = in + n * D, *dy = dout + n * D;
            real *dx = din + n * D, mean = stats[2 * n], rstd = stats[2 * n + 1], sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
            for (int64_t i = 0; i < D; ++i) {
                real xhat = (x[i] - mean) * rstd, g = dy[i] * weight[i];
                sum += g;
                dot += g * xhat;
            }
            sum /= (real)D;
            dot /= (real)D;
            for (int64_t i = 0; i < D; ++i) {
                real xhat = (x[i] - mean) * rstd, g = dy[i];
                dw[i] += g * xhat;
                db[i] += g;
                dx[i] = rstd * (g * weight[i] - sum - xhat * dot);
            }
        }
    }
    partial_add(dweight, dweights, D);
    partial_add(dbias, dbiases, D);
    arena_release(scratch, mark);
}

static void normalize_rows_forward(real *out, real *norms, const real *in, double floor, int64_t N, int64_t D) {
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        double squares = 0;
        for (int64_t i = 0; i < D; ++i) squares += (double)in[n * D + i] * in[n * D + i];
        norms[n] = (real)sqrt(squares);
        real divisor = norms[n] > (real)floor ? norms[n] : (real)floor;
        for (int64_t i = 0; i < D; ++i) out[n * D + i] = in[n * D + i] / divisor;
    }
}

/* Above the floor d(x / |x|) = (dout - out (out . dout)) / |x|; below it the divisor is a constant. */
static void normalize_rows_backward(real *din, const real *dout, const real *out, const real *norms, double floor,
                                    int64_t N, int64_t D) {
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        const real *y = out + n * D, *dy = dout + n * D;
        bool above = norms[n] > (real)floor;
        real divisor = above ? norms[n] : (real)floor;
        double dot = 0;
        for (int64_t i = 0; i < D; ++i) dot += (double)y[i] * dy[i];
        for (int64_t i = 0; i < D; ++i) din[n * D + i] += (dy[i] - (above ? (real)dot * y[i] : 0)) / divisor;
    }
}

void cpu_norm_ops(struct ops *table) {
    table->layer_norm_forward = layer_norm_forward;
    table->layer_norm_backward = layer_norm_backward;
    table->normalize_rows_forward = normalize_rows_forward;
    table->normalize_rows_backward = normalize_rows_backward;
}
