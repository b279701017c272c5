#include <string.h>

#include "kernels/cpu/cpu.h"

static void nearest_code(int32_t *codes, real *distance, const real *z, const real *table, int64_t N, int64_t M,
                         int64_t D) {
    if (!N) return;
    for (int64_t m = 0; m < M; ++m) {
        real squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < D; ++i) squares += table[m * D + i] * table[m * D + i];
        distance[m] = squares;
    }
    for (int64_t n = 1; n < N; ++n) memcpy(distance + n * M, distance, (size_t)M * sizeof *distance);
    ops->gemm(false, true, N, M, D, -2, z, D, table, D, 1, distance, M);
#pragma omp parallel for schedule(static) if (N * M > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        const real *d = distance + n * M;
        int32_t best = 0;
        for (int32_t m = 1; m < M; ++m)
            if (d[m] < d[best]) best = m;
        codes[n] = best;
    }
}

static void quantize(real *out, const real *x, const real *table, const int32_t *codes, double keep, double take,
                     int64_t N, int64_t D) {
    real a = (real)keep, b = (real)take;
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        const real *v = table + codes[n] * D;
        if (a == 0 && b == 1)
            for (int64_t i = 0; i < D; ++i) out[n * D + i] = v[i];
        else
            for (int64_t i = 0; i < D; ++i) out[n * D + i] = a * x[n * D + i] + b * v[i];
    }
}

static double code_error(const real *x, const real *table, const int32_t *codes, int64_t N, int64_t D) {
    double total = 0;
    for (int64_t n = 0; n < N; ++n) { /* one thread: N D is small beside the distances, and the sum keeps its order */
        const real *v = table + codes[n] * D;
        real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < D; ++i) sum += (v[i] - x[n * D + i]) * (v[i] - x[n * D + i]);
        total += sum;
    }
    return total;
}

/* A thread owns columns and walks all rows in order: no two add to one code. */
static void code_error_backward(real *dx, real *dtable, const real *x, const real *table, const int32_t *codes,
                                double commit, double code_scale, int64_t N, int64_t D) {
    real to_x = (real)commit, to_code = (real)code_scale;
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t block = 0; block < (D + 15) / 16; ++block) {
        int64_t first = block * 16, end = first + 16 < D ? first + 16 : D;
        for (int64_t n = 0; n < N; ++n) {
            const real *v = table + codes[n] * D, *z = x + n * D;
            real *dv = dtable ? dtable + codes[n] * D : NULL, *dz = dx + n * D;
            for (int64_t i = first; i < end; ++i) {
                real error = v[i] - z[i];
                dz[i] -= to_x * error;
                if (dv) dv[i] += to_code * error;
            }
        }
    }
}

void cpu_quantize_ops(struct ops *table) {
    table->nearest_code = nearest_code;
    table->quantize = quantize;
    table->code_error = code_error;
    table->code_error_backward = code_error_backward;
}
