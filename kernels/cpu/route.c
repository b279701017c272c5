/* What routing counts, and rows in and out of expert order. */
#include <string.h>

#include "base/hash.h"
#include "kernels/cpu/cpu.h"

static void balance_loss(double *loss, double *coefficient, const double *sums, const double *counts, double slots,
                         double tokens, int64_t E) {
    *loss = 0;
    for (int64_t e = 0; e < E; ++e) {
        coefficient[e] = slots != 0 ? (double)E * counts[e] / slots : 0;
        *loss += coefficient[e] * sums[e] / tokens;
    }
}

static void hash_scores(real *scores, const int32_t *ids, uint64_t salt, int64_t N, int64_t E) {
    memset(scores, 0, (size_t)(N * E) * sizeof *scores);
    for (int64_t n = 0; n < N; ++n)
        scores[n * E + (int64_t)(hash_splitmix64((uint64_t)ids[n] ^ salt) % (uint64_t)E)] = 1;
}

static void drop_beyond(int32_t *experts, const int64_t *place, const int64_t *shift, int64_t room, int64_t N) {
    for (int64_t i = 0; i < N; ++i)
        if (experts[i] >= 0 && place[i] + shift[experts[i]] >= room) experts[i] = -1;
}

static void sort_by_expert(int64_t *order, int64_t *place, int64_t *counts, const int32_t *experts,
                           struct arena *scratch, int64_t N, int64_t E) {
    (void)scratch;
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

static void row_numbers(int64_t *out, const int64_t *index, int64_t divisor, int64_t first, int64_t N) {
    for (int64_t n = 0; n < N; ++n) out[n] = first + (index ? index[n] : n) / divisor;
}

static void scatter_rows(real *out, const real *in, const int64_t *place, int64_t K, int64_t N, int64_t D) {
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t i = 0; i < N; ++i) {
        if (place[i] < 0) continue;
        const real *row = in + i / K * D;
        real *to = out + place[i] * D;
        for (int64_t j = 0; j < D; ++j) to[j] = row[j];
    }
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
    table->balance_loss = balance_loss;
    table->hash_scores = hash_scores;
    table->drop_beyond = drop_beyond;
    table->sort_by_expert = sort_by_expert;
    table->row_numbers = row_numbers;
    table->scatter_rows = scatter_rows;
    table->gather_rows = gather_rows;
    table->combine_forward = combine_forward;
    table->combine_backward = combine_backward;
}
