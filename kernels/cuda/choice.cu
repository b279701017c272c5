/* The choice of experts from scores [N, E], the softmaxes of routing and the balance loss. A warp takes a row. */
#include <float.h>
#include <math.h>

#include "kernels/cuda/rows.h"

/* The best of those after the last chosen in (score, lower index) order. A NaN is never after another nor better,
 * unless it is the very first; where none is left for the j-th choice it is j: the loss check reports the NaNs. */
static __global__ void top_k_rows(int32_t *__restrict__ experts, const float *__restrict__ scores, int64_t N, int64_t E,
                                  int64_t K) {
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        const float *s = scores + n * E;
        int32_t last = -1;
        for (int64_t j = 0; j < K; ++j) {
            float bound = last < 0 ? 0 : s[last], best_score = 0;
            int32_t best = -1;
            for (int32_t e = lane_index(); e < E; e += WARP) {
                float score = s[e];
                bool after = last < 0 || score < bound || (score == bound && e > last);
                if (after && score == score && (best < 0 || score > best_score)) best = e, best_score = score;
            }
            for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
                int32_t other = __shfl_xor_sync(ALL_LANES, best, lanes);
                float score = __shfl_xor_sync(ALL_LANES, best_score, lanes);
                bool better = best < 0 || score > best_score || (score == best_score && other < best);
                if (other >= 0 && better) best = other, best_score = score;
            }
            if (j == 0 && s[0] != s[0]) best = 0;
            last = best < 0 ? (int32_t)j : best;
            if (lane_index() == 0) experts[n * K + j] = last;
        }
    }
}

static void top_k(int32_t *experts, const real *scores, int64_t N, int64_t E, int64_t K) {
    if (N > 0) LAUNCH(top_k_rows, blocks_for(N * WARP, THREADS), THREADS, experts, scores, N, E, K);
}

/* Of a row s [E]: the largest, and the sum of exp((s - top) inverse). */
__device__ static inline float row_top(const float *s, int64_t E) {
    float top = -FLT_MAX;
    for (int64_t e = lane_index(); e < E; e += WARP) top = fmaxf(top, s[e]);
    return warp_max(top);
}

__device__ static inline float row_sum(const float *s, float top, float inverse, int64_t E) {
    float sum = 0;
    for (int64_t e = lane_index(); e < E; e += WARP) sum += expf((s[e] - top) * inverse);
    return warp_sum(sum);
}

static __global__ void route_weights_rows(float *__restrict__ weights, const float *__restrict__ scores,
                                          const int32_t *__restrict__ experts, bool over_all, int64_t N, int64_t E,
                                          int64_t K) {
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        const float *s = scores + n * E;
        const int32_t *chosen = experts + n * K;
        float top = -FLT_MAX, sum = 0;
        if (over_all) {
            top = row_top(s, E);
            sum = row_sum(s, top, 1, E);
        } else {
            for (int64_t j = lane_index(); j < K; j += WARP) top = fmaxf(top, s[chosen[j]]);
            top = warp_max(top);
            for (int64_t j = lane_index(); j < K; j += WARP) sum += expf(s[chosen[j]] - top);
            sum = warp_sum(sum);
        }
        for (int64_t j = lane_index(); j < K; j += WARP) weights[n * K + j] = expf(s[chosen[j]] - top) / sum;
    }
}

static void route_weights_forward(real *weights, const real *scores, const int32_t *experts, bool over_all, int64_t N,
                                  int64_t E, int64_t K) {
    if (N <= 0) return;
    LAUNCH(route_weights_rows, blocks_for(N * WARP, THREADS), THREADS, weights, scores, experts, over_all, N, E, K);
}

/* With p the softmax: ds = p (dw - sum dw p), dw being 0 where an expert was not chosen. */
static __global__ void route_weights_rows_backward(float *__restrict__ dscores, const float *__restrict__ dweights,
                                                   const float *__restrict__ weights, const float *__restrict__ scores,
                                                   const int32_t *__restrict__ experts, bool over_all, int64_t N,
                                                   int64_t E, int64_t K) {
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        const float *s = scores + n * E, *w = weights + n * K, *dw = dweights + n * K;
        const int32_t *chosen = experts + n * K;
        float dot = 0, top = 0, sum = 1;
        for (int64_t j = lane_index(); j < K; j += WARP) dot += dw[j] * w[j];
        dot = warp_sum(dot);
        if (over_all) {
            top = row_top(s, E);
            sum = row_sum(s, top, 1, E);
        }
        for (int64_t e = lane_index(); e < E; e += WARP) {
            float ds = over_all ? expf(s[e] - top) * (-dot / sum) : 0;
            for (int64_t j = 0; j < K; ++j)
                if (chosen[j] == e) ds += w[j] * (over_all ? dw[j] : dw[j] - dot);
            dscores[n * E + e] = ds;
        }
    }
}

static void route_weights_backward(real *dscores, const real *dweights, const real *weights, const real *scores,
                                   const int32_t *experts, bool over_all, int64_t N, int64_t E, int64_t K) {
    if (N <= 0) return;
    LAUNCH(route_weights_rows_backward, blocks_for(N * WARP, THREADS), THREADS, dscores, dweights, weights, scores,
           experts, over_all, N, E, K);
}

/* stats [N, 2]: top and sum of each row */
static __global__ void balance_stats(float *__restrict__ stats, const float *__restrict__ scores, float inverse,
                                     int64_t N, int64_t E) {
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        float top = row_top(scores + n * E, E), sum = row_sum(scores + n * E, top, inverse, E);
        if (lane_index() == 0) stats[2 * n] = top, stats[2 * n + 1] = sum;
    }
}

/* partial [chunks, E]: a warp sums a chunk's rows of 32 columns. */
enum { CHUNK = 64 };

static __global__ void balance_chunks(double *__restrict__ partial, const float *__restrict__ stats,
                                      const float *__restrict__ scores, float inverse, int64_t N, int64_t E) {
    int64_t across = (E + WARP - 1) / WARP, items = (N + CHUNK - 1) / CHUNK * across;
    for (int64_t item = warp_index(); item < items; item += warp_count()) {
        int64_t chunk = item / across, e = item % across * WARP + lane_index();
        int64_t end = (chunk + 1) * CHUNK < N ? (chunk + 1) * CHUNK : N;
        double sum = 0;
        if (e < E) {
            for (int64_t n = chunk * CHUNK; n < end; ++n)
                sum += expf((scores[n * E + e] - stats[2 * n]) * inverse) / stats[2 * n + 1];
            partial[chunk * E + e] = sum;
        }
    }
}

static void balance_forward(double *sums, const real *scores, double tau, int64_t N, int64_t E) {
    int64_t chunks = (N + CHUNK - 1) / CHUNK, across = (E + WARP - 1) / WARP;
    size_t bytes = (size_t)(chunks * E) * sizeof(double) + (size_t)(2 * N) * sizeof(float);
    double *partial = N > 0 ? (double *)cuda_workspace(WORKSPACE_PARTIAL, bytes) : NULL;
    float *stats = (float *)(partial + chunks * E), inverse = (float)(1 / tau);
    if (N > 0) {
        LAUNCH(balance_stats, blocks_for(N * WARP, THREADS), THREADS, stats, scores, inverse, N, E);
        LAUNCH(balance_chunks, blocks_for(chunks * across * WARP, THREADS), THREADS, partial, (const float *)stats,
               scores, inverse, N, E);
    }
    columns_sum<double, false>(sums, NULL, partial, chunks, E);
}

/* One block. */
static __global__ void balance_loss_sum(double *__restrict__ loss, double *__restrict__ coefficient,
                                        const double *__restrict__ sums, const double *__restrict__ counts,
                                        double slots, double tokens, int64_t E) {
    SHARED(double, of_warp, [WARPS]);
    double total = 0;
    for (int64_t e = threadIdx.x; e < E; e += THREADS) {
        coefficient[e] = slots != 0 ? (double)E * counts[e] / slots : 0;
        total += coefficient[e] * sums[e];
    }
    total = warp_sum(total);
    if (lane_index() == 0) of_warp[threadIdx.x / WARP] = total;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < WARPS; ++warp) total += of_warp[warp];
        *loss = total / tokens;
    }
}

static void balance_loss(double *loss, double *coefficient, const double *sums, const double *counts, double slots,
                         double tokens, int64_t E) {
    LAUNCH(balance_loss_sum, 1, THREADS, loss, coefficient, sums, counts, slots, tokens, E);
}

static __global__ void balance_rows_backward(float *__restrict__ dscores, const float *__restrict__ scores,
                                             const double *__restrict__ coefficient, float factor, float inverse,
                                             int64_t N, int64_t E) {
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        const float *s = scores + n * E;
        float top = row_top(s, E), sum = 0, dot = 0;
        for (int64_t e = lane_index(); e < E; e += WARP) {
            float p = expf((s[e] - top) * inverse);
            sum += p;
            dot += p * (float)coefficient[e];
        }
        sum = warp_sum(sum);
        dot = warp_sum(dot) / sum;
        for (int64_t e = lane_index(); e < E; e += WARP)
            dscores[n * E + e] += factor * expf((s[e] - top) * inverse) / sum * ((float)coefficient[e] - dot);
    }
}

static void balance_backward(real *dscores, const real *scores, const double *coefficient, double scale, double tau,
                             int64_t N, int64_t E) {
    if (N <= 0) return;
    LAUNCH(balance_rows_backward, blocks_for(N * WARP, THREADS), THREADS, dscores, scores, coefficient,
           (float)(scale / tau), (float)(1 / tau), N, E);
}

void cuda_choice_ops(struct ops *table) {
    table->top_k = top_k;
    table->route_weights_forward = route_weights_forward;
    table->route_weights_backward = route_weights_backward;
    table->balance_forward = balance_forward;
    table->balance_loss = balance_loss;
    table->balance_backward = balance_backward;
}
