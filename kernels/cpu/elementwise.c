#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

real *partial_take(struct arena *scratch, int64_t n) {
    real *partial = ARENA_ARRAY(scratch, real, omp_get_max_threads() * n);
    memset(partial, 0, (size_t)(omp_get_max_threads() * n) * sizeof *partial);
    return partial;
}

void partial_add(real *out, const real *partial, int64_t n) {
    for (int t = 0; t < omp_get_max_threads(); ++t)
        for (int64_t i = 0; i < n; ++i) out[i] += partial[t * n + i];
}

static void fill(real *out, real value, int64_t n) {
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (int64_t i = 0; i < n; ++i) out[i] = value;
}

static void copy(real *out, const real *in, int64_t n) { memcpy(out, in, (size_t)n * sizeof *out); }

static void add(real *out, const real *a, const real *b, int64_t n) {
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (int64_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
}

static void add_scaled(real *out, const real *in, double scale, int64_t n) {
    real factor = (real)scale;
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (int64_t i = 0; i < n; ++i) out[i] += factor * in[i];
}

/* Sums go over blocks of fixed size, then over blocks: the number of threads does not change the bits. */
enum { SUM_BLOCK = 4096 };

static double sum_blocks(const real *in, int64_t n, bool squares) {
    double total = 0;
    int64_t blocks = (n + SUM_BLOCK - 1) / SUM_BLOCK;
    for (int64_t first = 0; first < blocks; first += 1024) {
        double sums[1024];
        int64_t count = blocks - first < 1024 ? blocks - first : 1024;
#pragma omp parallel for schedule(static) if (count > 8)
        for (int64_t b = 0; b < count; ++b) {
            const real *x = in + (first + b) * SUM_BLOCK;
            int64_t size = n - (first + b) * SUM_BLOCK < SUM_BLOCK ? n - (first + b) * SUM_BLOCK : SUM_BLOCK;
            double sum = 0;
            if (squares) {
#pragma omp simd reduction(+ : sum)
                for (int64_t i = 0; i < size; ++i) sum += (double)x[i] * x[i];
            } else {
#pragma omp simd reduction(+ : sum)
                for (int64_t i = 0; i < size; ++i) sum += x[i];
            }
            sums[b] = sum;
        }
        for (int64_t b = 0; b < count; ++b) total += sums[b];
    }
    return total;
}

static double sum(const real *in, int64_t n) { return sum_blocks(in, n, false); }

static double sum_squares(const real *in, int64_t n) { return sum_blocks(in, n, true); }

static bool all_finite(const real *in, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
        if (!isfinite(in[i])) return false;
    return true;
}

enum { DROPOUT_CHUNK = 64 }; /* columns at once: 16 lanes of four words */

/* factor [DROPOUT_CHUNK]: what columns first .. of a row are multiplied by. */
static void dropout_factors(real *factor, const struct dropout *dropout, uint32_t threshold, real scale, uint32_t row,
                            int64_t first) {
    if (dropout->p <= 0) {
        for (int i = 0; i < DROPOUT_CHUNK; ++i) factor[i] = 1;
        return;
    }
    uint32_t words[4][DROPOUT_CHUNK / 4];
#pragma omp simd
    for (uint32_t lane = 0; lane < DROPOUT_CHUNK / 4; ++lane) {
        uint32_t quad[4];
        rng_words(quad, dropout->place, row, (uint32_t)(first / 4) + lane);
        for (int i = 0; i < 4; ++i) words[i][lane] = quad[i];
    }
    for (int i = 0; i < DROPOUT_CHUNK; ++i) factor[i] = words[i & 3][i >> 2] >= threshold ? scale : 0;
}

void dropout_row(real *values, const struct dropout *dropout, uint32_t row, int64_t n) {
    uint32_t threshold = (uint32_t)(dropout->p * 0x1p32);
    real scale = (real)(1 / (1 - dropout->p));
    for (int64_t first = 0; first < n; first += DROPOUT_CHUNK) {
        real factor[DROPOUT_CHUNK];
        dropout_factors(factor, dropout, threshold, scale, row, first);
        int64_t count = n - first < DROPOUT_CHUNK ? n - first : DROPOUT_CHUNK;
        for (int64_t i = 0; i < count; ++i) values[first + i] *= factor[i];
    }
}

/* In chunks of a row, since out may be the residual and the masked values need a place of their own. */
static void dropout_rows(real *out, const real *residual, const real *in, struct dropout dropout, int64_t row_first,
                         int64_t N, int64_t D) {
    uint32_t threshold = (uint32_t)(dropout.p * 0x1p32);
    real scale = (real)(1 / (1 - dropout.p));
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        for (int64_t first = 0; first < D; first += DROPOUT_CHUNK) {
            int64_t count = D - first < DROPOUT_CHUNK ? D - first : DROPOUT_CHUNK, at = n * D + first;
            real factor[DROPOUT_CHUNK];
            dropout_factors(factor, &dropout, threshold, scale, (uint32_t)(row_first + n), first);
            for (int64_t i = 0; i < count; ++i) {
                real kept = in[at + i] * factor[i];
                out[at + i] = residual ? residual[at + i] + kept : kept;
            }
        }
    }
}

static void relu_forward(real *hidden, const real *bias, const int64_t *rows, struct dropout dropout, int64_t N,
                         int64_t D) {
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        real *h = hidden + n * D;
        for (int64_t i = 0; i < D; ++i) {
            real x = h[i] + bias[i];
            h[i] = x > 0 || x != x ? x : 0; /* a NaN stays one, for the check of the loss */
        }
        if (dropout.p > 0) dropout_row(h, &dropout, (uint32_t)rows[n], D);
    }
}

static void relu_backward(real *dhidden, real *dbias, const real *hidden, struct dropout dropout, struct arena *scratch,
                          int64_t N, int64_t D) {
    struct arena_mark mark = arena_mark(scratch);
    real *partial = partial_take(scratch, D), scale = (real)(1 / (1 - dropout.p));
#pragma omp parallel
    {
        real *db = partial + omp_get_thread_num() * D;
#pragma omp for schedule(static)
        for (int64_t n = 0; n < N; ++n) {
            real *dh = dhidden + n * D;
            const real *h = hidden + n * D;
            for (int64_t i = 0; i < D; ++i) {
                dh[i] = h[i] > 0 ? scale * dh[i] : 0;
                db[i] += dh[i];
            }
        }
    }
    partial_add(dbias, partial, D);
    arena_release(scratch, mark);
}

void cpu_elementwise_ops(struct ops *table) {
    table->fill = fill;
    table->copy = copy;
    table->add = add;
    table->add_scaled = add_scaled;
    table->sum = sum;
    table->sum_squares = sum_squares;
    table->all_finite = all_finite;
    table->dropout = dropout_rows;
    table->relu_forward = relu_forward;
    table->relu_backward = relu_backward;
}
