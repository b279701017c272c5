#include "kernels/cuda/rows.h"

template <int W>
static __global__ void layer_norm_rows(float *out, float *stats, const float *in, const float *__restrict__ weight,
                                       const float *__restrict__ bias, int64_t N, int64_t D) {
    int64_t first = lane_index() * W;
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        const float *x = in + n * D;
        float sum = 0, squares = 0;
        for (int64_t i = first; i < D; i += WARP * W) {
            floats<W> v = load<W>(x + i);
            for (int k = 0; k < W; ++k) sum += v.x[k];
        }
        float mean = warp_sum(sum) / (float)D;
        for (int64_t i = first; i < D; i += WARP * W) {
            floats<W> v = load<W>(x + i);
            for (int k = 0; k < W; ++k) squares += (v.x[k] - mean) * (v.x[k] - mean);
        }
        float rstd = (float)(1 / sqrt((double)warp_sum(squares) / (double)D + 1e-5));
        for (int64_t i = first; i < D; i += WARP * W) {
            floats<W> v = load<W>(x + i), w = load<W>(weight + i), b = load<W>(bias + i);
            for (int k = 0; k < W; ++k) v.x[k] = (v.x[k] - mean) * rstd * w.x[k] + b.x[k];
            store<W>(out + n * D + i, v);
        }
        if (lane_index() == 0) {
            stats[2 * n] = mean;
            stats[2 * n + 1] = rstd;
        }
    }
}

static void layer_norm_forward(real *out, real *stats, const real *in, const real *weight, const real *bias, int64_t N,
                               int64_t D) {
    LAUNCH_ROWS(layer_norm_rows, in_fours(D, out, in, weight, bias), N, out, stats, in, weight, bias, N, D);
}

/* With xhat = (x - mean) rstd and dx = dout weight: din = rstd (dx - mean(dx) - xhat mean(dx xhat)). Each warp keeps
 * sums of its rows for weight and bias, in shared memory where HERE, which leaves partial [blocks, 2 D], else where
 * they end up, in partial [warps, 2 D]. din may be dout: a lane reads and writes columns of its own alone. */
template <int W, bool HERE>
static __global__ void layer_norm_rows_backward(float *din, float *partial, const float *dout, const float *in,
                                                const float *__restrict__ stats, const float *__restrict__ weight,
                                                int64_t N, int64_t D) {
    DYN_SHARED(float, shared);
    int warp = (int)threadIdx.x / WARP;
    int64_t first = lane_index() * W;
    float *dw = HERE ? shared + warp * 2 * D : partial + warp_index() * 2 * D, *db = dw + D;
    for (int64_t i = first; i < D; i += WARP * W) store<W>(dw + i, floats<W>{}), store<W>(db + i, floats<W>{});
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        const float *x = in + n * D, *dy = dout + n * D;
        float mean = stats[2 * n], rstd = stats[2 * n + 1], sum = 0, dot = 0;
        for (int64_t i = first; i < D; i += WARP * W) {
            floats<W> v = load<W>(x + i), g = load<W>(dy + i), w = load<W>(weight + i);
            for (int k = 0; k < W; ++k) {
                float dx = g.x[k] * w.x[k];
                sum += dx;
                dot += dx * (v.x[k] - mean) * rstd;
            }
        }
        sum = warp_sum(sum) / (float)D;
        dot = warp_sum(dot) / (float)D;
        for (int64_t i = first; i < D; i += WARP * W) {
            floats<W> v = load<W>(x + i), g = load<W>(dy + i), w = load<W>(weight + i);
            floats<W> sum_w = load<W>(dw + i), sum_b = load<W>(db + i);
            for (int k = 0; k < W; ++k) {
                float xhat = (v.x[k] - mean) * rstd;
                sum_w.x[k] += g.x[k] * xhat;
                sum_b.x[k] += g.x[k];
                v.x[k] = rstd * (g.x[k] * w.x[k] - sum - xhat * dot);
            }
            store<W>(dw + i, sum_w), store<W>(db + i, sum_b);
            store<W>(din + n * D + i, v);
        }
    }
    if (HERE) {
        __syncthreads();
        for (int64_t i = threadIdx.x; i < 2 * D; i += blockDim.x) {
            float total = shared[i];
            for (int other = 1; other < (int)blockDim.x / WARP; ++other) total += shared[other * 2 * D + i];
            partial[blockIdx.x * 2 * D + i] = total;
        }
    }
}

/* What a block may take without asking for more; rows wider than 6144 do not fit. */
static const int64_t SHARED_BYTES = 48 << 10;

static void layer_norm_backward(real *din, real *dweight, real *dbias, const real *dout, const real *in,
                                const real *stats, const real *weight, struct arena *scratch, int64_t N, int64_t D) {
    if (N <= 0) return;
    struct arena_mark mark = arena_mark(scratch);
    int64_t row = 2 * D * (int64_t)sizeof(float), fit = SHARED_BYTES / row;
    int64_t warps = fit < 1 ? 1 : fit < WARPS ? fit : WARPS;
    int64_t blocks = (N + 4 * warps - 1) / (4 * warps), most = (int64_t)cuda.processors * (fit ? 4 : 1);
    if (blocks > most) blocks = most;
    bool fours = in_fours(D, din, dout, in, weight);
    float *partial = ARENA_ARRAY(scratch, float, blocks * 2 * D);
    unsigned grid = (unsigned)blocks, threads = (unsigned)(warps * WARP);
    size_t bytes = (size_t)(warps * row);
    if (fit && fours)
        LAUNCH_SHARED((layer_norm_rows_backward<4, true>), grid, threads, bytes, din, partial, dout, in, stats, weight,
                      N, D);
    else if (fit)
        LAUNCH_SHARED((layer_norm_rows_backward<1, true>), grid, threads, bytes, din, partial, dout, in, stats, weight,
                      N, D);
    else if (fours)
        LAUNCH((layer_norm_rows_backward<4, false>), grid, threads, din, partial, dout, in, stats, weight, N, D);
    else
        LAUNCH((layer_norm_rows_backward<1, false>), grid, threads, din, partial, dout, in, stats, weight, N, D);
    columns_sum<float, true>(dweight, dbias, partial, blocks, D);
    arena_release(scratch, mark);
}

/* out may be in. */
template <int W>
static __global__ void normalized_rows(float *out, float *__restrict__ norms, const float *in, float floor, int64_t N,
                                       int64_t D) {
    int64_t first = lane_index() * W;
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        double squares = 0;
        for (int64_t i = first; i < D; i += WARP * W) {
            floats<W> v = load<W>(in + n * D + i);
            for (int k = 0; k < W; ++k) squares += (double)v.x[k] * v.x[k];
        }
        float norm = (float)sqrt(warp_sum(squares)), divisor = norm > floor ? norm : floor;
        for (int64_t i = first; i < D; i += WARP * W) {
            floats<W> v = load<W>(in + n * D + i);
            for (int k = 0; k < W; ++k) v.x[k] /= divisor;
            store<W>(out + n * D + i, v);
        }
        if (lane_index() == 0) norms[n] = norm;
    }
}

static void normalize_rows_forward(real *out, real *norms, const real *in, double floor, int64_t N, int64_t D) {
    LAUNCH_ROWS(normalized_rows, in_fours(D, out, in), N, out, norms, in, (float)floor, N, D);
}

/* Above the floor d(x / |x|) = (dout - out (out . dout)) / |x|; below it the divisor is a constant. */
template <int W>
static __global__ void normalized_rows_backward(float *__restrict__ din, const float *__restrict__ dout,
                                                const float *__restrict__ out, const float *__restrict__ norms,
                                                float floor, int64_t N, int64_t D) {
    int64_t first = lane_index() * W;
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        float norm = norms[n], divisor = norm > floor ? norm : floor;
        double dot = 0;
        for (int64_t i = first; i < D; i += WARP * W) {
            floats<W> y = load<W>(out + n * D + i), dy = load<W>(dout + n * D + i);
            for (int k = 0; k < W; ++k) dot += (double)y.x[k] * dy.x[k];
        }
        float along = (float)warp_sum(dot);
        if (!(norm > floor)) along = 0;
        for (int64_t i = first; i < D; i += WARP * W) {
            floats<W> y = load<W>(out + n * D + i), dy = load<W>(dout + n * D + i), dx = load<W>(din + n * D + i);
            for (int k = 0; k < W; ++k) dx.x[k] += (dy.x[k] - along * y.x[k]) / divisor;
            store<W>(din + n * D + i, dx);
        }
    }
}

static void normalize_rows_backward(real *din, const real *dout, const real *out, const real *norms, double floor,
                                    int64_t N, int64_t D) {
    LAUNCH_ROWS(normalized_rows_backward, in_fours(D, din, dout, out), N, din, dout, out, norms, (float)floor, N, D);
}

void cuda_norm_ops(struct ops *table) {
    table->layer_norm_forward = layer_norm_forward;
    table->layer_norm_backward = layer_norm_backward;
    table->normalize_rows_forward = normalize_rows_forward;
    table->normalize_rows_backward = normalize_rows_backward;
}
