/* Rows in and out of expert order. */
#include "kernels/cpu/cpu.h"

static void sort_by_expert(int64_t *order, int64_t *place, int64_t *counts, const int32_t *experts, int64_t N,
                           int64_t E) {
    for (int64_t e = 0; e < E; ++e) counts[e] = 0;
    for (int64_t i = 0; i < N; ++i)
        if (experts[i] >= 0) counts[experts[i]]++;
    int64_t next = 0;
    for (int64_t e = 0; e < E; ++e) { /* counts hold the next free place for a while, then are counts again */
        int64_t count = counts[e];
        counts[e] = next;
        next += count;
    }
    for (int64_t i = 0; i < N; ++i) {
        place[i] = experts[i] < 0 ? -1 : counts[experts[i]]++;
        if (place[i] >= 0) order[place[i]] = i;
    }
    for (int64_t e = E - 1; e > 0; --e) counts[e] -= counts[e - 1];
}

static void gather_rows(real *out, const real *in, const int64_t *index, int64_t divisor, int64_t N, int64_t D) {
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        const real *row = in + index[n] / divisor * D;
        for (int64_t i = 0; i < D; ++i) out[n * D + i] = row[i];
    }
}

static void combine_forward(real *out, bool add, const real *rows, const int64_t *place, const real *weights, int64_t N,
                            int64_t K, int64_t D) {
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        real *y = out + n * D;
        bool written = add;
        for (int64_t j = 0; j < K; ++j) {
            if (place[n * K + j] < 0) continue;
            const real *row = rows + place[n * K + j] * D;
            real weight = weights ? weights[n * K + j] : 1;
            if (written)
                for (int64_t i = 0; i < D; ++i) y[i] += weight * row[i];
            else
                for (int64_t i = 0; i < D; ++i) y[i] = weight * row[i];
            written = true;
        }
        for (int64_t i = 0; i < D && !written; ++i) y[i] = 0;
    }
}

static void combine_backward(real *drows, real *dweights, const real *dout, const real *rows, const int64_t *place,
                             const real *weights, int64_t N, int64_t K, int64_t D) {
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        const real *dy = dout + n * D;
        for (int64_t j = 0; j < K; ++j) {
            dweights[n * K + j] = 0;
            if (place[n * K + j] < 0) continue;
            const real *row = rows + place[n * K + j] * D;
            real *drow = drows + place[n * K + j] * D, weight = weights[n * K + j], dot = 0;
#pragma omp simd reduction(+ : dot)
            for (int64_t i = 0; i < D; ++i) {
                dot += dy[i] * row[i];
                drow[i] = weight * dy[i];
            }
            dweights[n * K + j] = dot;
        }
    }
}

void cpu_route_ops(struct ops *table) {
    table->sort_by_expert = sort_by_expert;
    table->gather_rows = gather_rows;
    table->combine_forward = combine_forward;
    table->combine_backward = combine_backward;
}
