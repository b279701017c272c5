#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { DISTANCES = 1 << 20 }; /* at most so many at once where nobody wants them afterwards */

/* squares [M] of the codes' norms */
static void nearest_of_rows(int32_t *codes, real *distance, const real *z, const real *table, const real *squares,
                            int64_t N, int64_t M, int64_t D) {
    for (int64_t n = 0; n < N; ++n) memcpy(distance + n * M, squares, (size_t)M * sizeof *distance);
    cpu_gemm_exact(false, true, N, M, D, -2, z, D, table, D, 1, distance, M);
#pragma omp parallel for schedule(static) if (N * M > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        const real *d = distance + n * M;
        int32_t best = 0;
        for (int32_t m = 1; m < M; ++m)
            if (d[m] < d[best]) best = m;
        codes[n] = best;
    }
}

static void nearest_code(int32_t *codes, real *distance, const real *z, const real *table, struct arena *scratch,
                         int64_t N, int64_t M, int64_t D) {
    struct arena_mark mark = arena_mark(scratch);
    int64_t block = distance || N * M <= DISTANCES ? N : M < DISTANCES ? DISTANCES / M : 1;
    real *squares = ARENA_ARRAY(scratch, real, M), *own = distance ? NULL : ARENA_ARRAY(scratch, real, block * M);
    for (int64_t m = 0; m < M; ++m) {
        real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < D; ++i) sum += table[m * D + i] * table[m * D + i];
        squares[m] = sum;
    }
    for (int64_t n = 0; n < N; n += block)
        nearest_of_rows(codes + n, distance ? distance + n * M : own, z + n * D, table, squares,
                        N - n < block ? N - n : block, M, D);
    arena_release(scratch, mark);
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

static void code_error(double *out, const real *x, const real *table, const int32_t *codes, int64_t N, int64_t D) {
    double total = 0;
    for (int64_t n = 0; n < N; ++n) { /* one thread: N D is small beside the distances, and the sum keeps its order */
        const real *v = table + codes[n] * D;
        real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < D; ++i) sum += (v[i] - x[n * D + i]) * (v[i] - x[n * D + i]);
        total += sum;
    }
    *out = total;
}

/* A thread owns columns and walks all rows in order: no two add to one code. */
static void code_error_backward(real *dx, real *dtable, const real *x, const real *table, const int32_t *codes,
                                double commit, double code_scale, struct arena *scratch, int64_t N, int64_t M,
                                int64_t D) {
    (void)scratch, (void)M;
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

static void code_sums(double *counts, double *sums, const real *x, const int32_t *codes, int64_t N, int64_t M,
                      int64_t D) {
    (void)M;
    for (int64_t n = 0; n < N; ++n) counts[codes[n]]++;
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t block = 0; block < (sums ? (D + 15) / 16 : 0); ++block) {
        int64_t first = block * 16, end = first + 16 < D ? first + 16 : D;
        for (int64_t n = 0; n < N; ++n)
            for (int64_t i = first; i < end; ++i) sums[codes[n] * D + i] += x[n * D + i];
    }
}

/* Four codes share a draw, and belong to one thread. */
static void anchor_search(double *best, int64_t *token, double *anchor, const real *scores, const real *v,
                          const real *x, struct rng_place place, int64_t first, int64_t N, int64_t M, int64_t D) {
#pragma omp parallel for schedule(static)
    for (int64_t quad = 0; quad < (M + 3) / 4; ++quad) {
        double squares[4] = {0};
        int64_t m0 = 4 * quad, end = m0 + 4 < M ? m0 + 4 : M;
        for (int64_t m = m0; m < end; ++m)
            for (int64_t i = 0; i < D; ++i) squares[m - m0] += (double)v[m * D + i] * v[m * D + i];
        for (int64_t n = 0; n < N; ++n) {
            uint32_t words[4];
            rng_words(words, place, (uint32_t)(first + n), (uint32_t)quad);
            for (int64_t m = m0; m < end; ++m) {
                double gumbel = -log(-log(rng_uniform(words[m - m0])));
                double value = (squares[m - m0] - scores[n * M + m]) / 2 + gumbel;
                if (value <= best[m]) continue;
                best[m] = value;
                token[m] = first + n;
                for (int64_t i = 0; i < D; ++i) anchor[m * D + i] = x[n * D + i];
            }
        }
    }
}

void cpu_quantize_ops(struct ops *table) {
    table->nearest_code = nearest_code;
    table->quantize = quantize;
    table->code_error = code_error;
    table->code_error_backward = code_error_backward;
    table->code_sums = code_sums;
    table->anchor_search = anchor_search;
}
