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

static void copy_rows(real *out, int64_t out_stride, const real *in, int64_t in_stride, int64_t N, int64_t D) {
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) memcpy(out + n * out_stride, in + n * in_stride, (size_t)D * sizeof *out);
}

static void add_rows(real *out, int64_t out_stride, const real *in, int64_t in_stride, int64_t N, int64_t D) {
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n)
        for (int64_t i = 0; i < D; ++i) out[n * out_stride + i] += in[n * in_stride + i];
}

static void add(real *out, const real *a, const real *b, int64_t n) {
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (int64_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
}

static void add_scaled(real *out, const real *in, double scale, int64_t n) {
    real factor = (real)scale;
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (int64_t i = 0; i < n; ++i) out[i] += factor * in[i];
}

static void tanh_forward(real *out, const real *in, int64_t n) {
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (int64_t i = 0; i < n; ++i) out[i] = (real)tanh((double)in[i]);
}

static void tanh_backward(real *din, const real *dout, const real *out, int64_t n) {
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (int64_t i = 0; i < n; ++i) din[i] = dout[i] * (1 - out[i] * out[i]);
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

static void sum(double *out, const real *in, int64_t n) { *out = sum_blocks(in, n, false); }

static void sum_squares(double *out, const real *in, int64_t n) { *out = sum_blocks(in, n, true); }

static bool all_finite(const real *in, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
        if (!isfinite(in[i])) return false;
    return true;
}

static void take_column(int32_t *out, const int32_t *in, int64_t N, int64_t K) {
    for (int64_t n = 0; n < N; ++n) out[n] = in[n * K];
}

static void modulo(int32_t *out, const int32_t *in, int64_t divisor, int64_t N) {
    for (int64_t n = 0; n < N; ++n) out[n] = (int32_t)(in[n] % divisor);
}

static void histogram(double *counts, const int32_t *ids, int64_t N, int64_t M) {
    for (int64_t m = 0; m < M; ++m) counts[m] = 0;
    for (int64_t n = 0; n < N; ++n)
        if (ids[n] >= 0) counts[ids[n]]++;
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

void dropout_row(real *values, const struct dropout *dropout, uint32_t row, int64_t first, int64_t n) {
    uint32_t threshold = (uint32_t)(dropout->p * 0x1p32);
    real scale = (real)(1 / (1 - dropout->p));
    int64_t before = first % 4; /* four columns are one draw */
    for (int64_t at = -before; at < n; at += DROPOUT_CHUNK) {
        real factor[DROPOUT_CHUNK];
        dropout_factors(factor, dropout, threshold, scale, row, first + at);
        int64_t count = n - at < DROPOUT_CHUNK ? n - at : DROPOUT_CHUNK;
        for (int64_t i = at < 0 ? before : 0; i < count; ++i) values[at + i] *= factor[i];
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

static struct dropout lane_of(struct dropout dropout, int64_t i) {
    dropout.place.site += (uint32_t)i << 16;
    return dropout;
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
        if (rows && dropout.p > 0) dropout_row(h, &dropout, (uint32_t)rows[n], 0, D);
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

static void grouped_relu_forward(real *hidden, const real *bias, const int64_t *rows, struct dropout dropout,
                                 const struct groups *groups, int64_t D) {
    for (int64_t i = 0; i < groups->count; ++i) {
        int64_t at = groups->begin[i];
        relu_forward(hidden + at * D, bias + i * D, rows ? rows + at : NULL, lane_of(dropout, i),
                     groups->begin[i + 1] - at, D);
    }
}

/* An empty group leaves its dbias as it is. */
static void grouped_relu_backward(real *dhidden, real *dbias, const real *hidden, struct dropout dropout,
                                  struct arena *scratch, const struct groups *groups, int64_t D) {
    for (int64_t i = 0; i < groups->count; ++i) {
        int64_t at = groups->begin[i], N = groups->begin[i + 1] - at;
        if (N) relu_backward(dhidden + at * D, dbias + i * D, hidden + at * D, dropout, scratch, N, D);
    }
}

void cpu_elementwise_ops(struct ops *table) {
    table->fill = fill;
    table->copy = copy;
    table->copy_rows = copy_rows;
    table->add_rows = add_rows;
    table->add = add;
    table->add_scaled = add_scaled;
    table->tanh_forward = tanh_forward;
    table->tanh_backward = tanh_backward;
    table->sum = sum;
    table->sum_squares = sum_squares;
    table->all_finite = all_finite;
    table->take_column = take_column;
    table->modulo = modulo;
    table->histogram = histogram;
    table->dropout = dropout_rows;
    table->grouped_relu_forward = grouped_relu_forward;
    table->grouped_relu_backward = grouped_relu_backward;
}
