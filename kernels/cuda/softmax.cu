/* Cross-entropy and the mixture of two paths; choice.cu has the softmaxes of routing. */
#include <float.h>
#include <math.h>

#include "kernels/cuda/rows.h"

/* Rows wider than this are a block's, others a warp's. */
static const int64_t WIDE = 2048;

/* sum of exp(x - top) over the values so far. The top of nothing is finite: a difference to it is a number. */
struct running {
    float top, sum;
};

__device__ static inline struct running warp_join(struct running own) {
    float top = warp_max(own.top);
    return running{top, warp_sum(own.sum * expf(own.top - top))};
}

/* One of `threads` threads walks its share of a row, eight values at a time. */
template <int W> __device__ static inline struct running walk(const float *x, int64_t V, int thread, int threads) {
    const int AT_ONCE = 8 / W;
    struct running all = {-FLT_MAX, 0};
    for (int64_t first = (int64_t)thread * W; first < V; first += (int64_t)threads * W * AT_ONCE) {
        floats<W> values[AT_ONCE];
        float top = all.top;
        for (int u = 0; u < AT_ONCE; ++u) {
            int64_t i = first + (int64_t)u * threads * W;
            for (int k = 0; k < W; ++k) values[u].x[k] = -INFINITY;
            if (i < V) values[u] = load<W>(x + i);
            for (int k = 0; k < W; ++k) top = fmaxf(top, values[u].x[k]);
        }
        all.sum *= expf(all.top - top);
        all.top = top;
        for (int u = 0; u < AT_ONCE; ++u)
            for (int k = 0; k < W; ++k) all.sum += expf(values[u].x[k] - top);
    }
    return all;
}

__device__ static inline void loss_of(float *losses, float *lse, const float *logits, const int32_t *targets, int64_t n,
                                      int64_t V, struct running all) {
    float log_sum = all.top + (float)log((double)all.sum);
    lse[n] = log_sum;
    losses[n] = targets[n] < 0 ? log_sum : log_sum - logits[n * V + targets[n]];
}

template <int W>
static __global__ void losses_by_warps(float *__restrict__ losses, float *__restrict__ lse,
                                       const float *__restrict__ logits, const int32_t *__restrict__ targets, int64_t N,
                                       int64_t V) {
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        struct running all = warp_join(walk<W>(logits + n * V, V, lane_index(), WARP));
        if (lane_index() == 0) loss_of(losses, lse, logits, targets, n, V, all);
    }
}

template <int W>
static __global__ void losses_by_blocks(float *__restrict__ losses, float *__restrict__ lse,
                                        const float *__restrict__ logits, const int32_t *__restrict__ targets,
                                        int64_t N, int64_t V) {
    SHARED(float, tops, [WARPS]);
    SHARED(float, sums, [WARPS]);
    int lane = lane_index(), warp = (int)threadIdx.x / WARP;
    for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
        struct running all = warp_join(walk<W>(logits + n * V, V, (int)threadIdx.x, THREADS));
        if (lane == 0) tops[warp] = all.top, sums[warp] = all.sum;
        __syncthreads();
        if (warp == 0) {
            all = running{lane < WARPS ? tops[lane] : -FLT_MAX, lane < WARPS ? sums[lane] : 0};
            all = warp_join(all);
            if (lane == 0) loss_of(losses, lse, logits, targets, n, V, all);
        }
        __syncthreads();
    }
}

static void cross_entropy_forward(real *losses, real *lse, const real *logits, const int32_t *targets, int64_t N,
                                  int64_t V) {
    bool fours = in_fours(V, logits);
    if (V <= WIDE)
        LAUNCH_ROWS(losses_by_warps, fours, N, losses, lse, logits, targets, N, V);
    else if (N > 0 && fours)
        LAUNCH((losses_by_blocks<4>), blocks_for(N, 1), THREADS, losses, lse, logits, targets, N, V);
    else if (N > 0)
        LAUNCH((losses_by_blocks<1>), blocks_for(N, 1), THREADS, losses, lse, logits, targets, N, V);
}

/* `team` threads of a block for a row. dlogits may be logits. */
template <int W>
static __global__ void losses_backward(float *dlogits, const float *logits, const float *__restrict__ lse,
                                       const int32_t *__restrict__ targets, float scale, int64_t N, int64_t V,
                                       int team) {
    for (int64_t n = thread_index() / team; n < N; n += thread_count() / team) {
        float log_sum = lse[n];
        int32_t target = targets[n];
        for (int64_t i = (int64_t)(threadIdx.x % team) * W; i < V; i += (int64_t)team * W) {
            floats<W> x = load<W>(logits + n * V + i);
            for (int k = 0; k < W; ++k) {
                x.x[k] = scale * expf(x.x[k] - log_sum);
                if (i + k == target) x.x[k] -= scale;
            }
            store<W>(dlogits + n * V + i, x);
        }
    }
}

static void cross_entropy_backward(real *dlogits, const real *logits, const real *lse, const int32_t *targets,
                                   double scale, int64_t N, int64_t V) {
    if (N <= 0) return;
    int team = V <= WIDE ? (int)WARP : THREADS;
    unsigned blocks = blocks_for(N * team, THREADS);
    if (in_fours(V, dlogits, logits))
        LAUNCH((losses_backward<4>), blocks, THREADS, dlogits, logits, lse, targets, (float)scale, N, V, team);
    else
        LAUNCH((losses_backward<1>), blocks, THREADS, dlogits, logits, lse, targets, (float)scale, N, V, team);
}

struct joined {
    float *losses, *lse;
    const float *parts;
    int64_t P, N;
    template <int W> __device__ void at(int64_t n) const {
        float top = parts[N + n], sum = 0, picked = 0;
        for (int64_t p = 1; p < P; ++p) top = fmaxf(top, parts[(2 * p + 1) * N + n]);
        for (int64_t p = 0; p < P; ++p) {
            float own = parts[(2 * p + 1) * N + n];
            sum += expf(own - top);
            picked += own - parts[2 * p * N + n];
        }
        float log_sum = top + (float)log((double)sum);
        lse[n] = log_sum;
        losses[n] = log_sum - picked;
    }
};

static void cross_entropy_join(real *losses, real *lse, const real *parts, int64_t P, int64_t N) {
    each_launch(joined{losses, lse, parts, P, N}, N);
}

template <int W>
static __global__ void mix_rows(float *__restrict__ out, float *__restrict__ gates, const float *__restrict__ logits,
                                const float *__restrict__ a, const float *__restrict__ b, int64_t N, int64_t D) {
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        float difference = logits[2 * n] - logits[2 * n + 1]; /* exp of what is not positive cannot overflow */
        float e = expf(difference > 0 ? -difference : difference), large = 1 / (1 + e), small = e * large;
        float g0 = difference > 0 ? large : small, g1 = difference > 0 ? small : large;
        if (lane_index() == 0) gates[2 * n] = g0, gates[2 * n + 1] = g1;
        for (int64_t i = n * D + lane_index() * W; i < (n + 1) * D; i += WARP * W) {
            floats<W> x = load<W>(a + i), y = load<W>(b + i);
            for (int k = 0; k < W; ++k) x.x[k] = g0 * x.x[k] + g1 * y.x[k];
            store<W>(out + i, x);
        }
    }
}

static void mix_forward(real *out, real *gates, const real *logits, const real *a, const real *b, int64_t N,
                        int64_t D) {
    LAUNCH_ROWS(mix_rows, in_fours(D, out, a, b), N, out, gates, logits, a, b, N, D);
}

template <int W>
static __global__ void mix_rows_backward(float *__restrict__ da, float *__restrict__ db, float *__restrict__ dlogits,
                                         const float *__restrict__ dout, const float *__restrict__ gates,
                                         const float *__restrict__ a, const float *__restrict__ b, int64_t N,
                                         int64_t D) {
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        float g0 = gates[2 * n], g1 = gates[2 * n + 1], dot = 0;
        for (int64_t i = n * D + lane_index() * W; i < (n + 1) * D; i += WARP * W) {
            floats<W> x = load<W>(a + i), y = load<W>(b + i), d = load<W>(dout + i);
            for (int k = 0; k < W; ++k) {
                dot += d.x[k] * (x.x[k] - y.x[k]);
                x.x[k] = g0 * d.x[k];
                y.x[k] = g1 * d.x[k];
            }
            store<W>(da + i, x), store<W>(db + i, y);
        }
        dot = warp_sum(dot);
        if (lane_index() == 0) dlogits[2 * n] = g0 * g1 * dot, dlogits[2 * n + 1] = -g0 * g1 * dot;
    }
}

static void mix_backward(real *da, real *db, real *dlogits, const real *dout, const real *gates, const real *a,
                         const real *b, int64_t N, int64_t D) {
    LAUNCH_ROWS(mix_rows_backward, in_fours(D, da, db, dout, a, b), N, da, db, dlogits, dout, gates, a, b, N, D);
}

void cuda_softmax_ops(struct ops *table) {
    table->cross_entropy_forward = cross_entropy_forward;
    table->cross_entropy_backward = cross_entropy_backward;
    table->cross_entropy_join = cross_entropy_join;
    table->mix_forward = mix_forward;
    table->mix_backward = mix_backward;
    cuda_choice_ops(table);
}
