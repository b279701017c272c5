#include <math.h>

#include "kernels/cuda/segments.h"

template <int W>
static __global__ void embedding_rows(float *__restrict__ out, const float *__restrict__ weight,
                                      const int32_t *__restrict__ ids, float scale, int64_t N, int64_t D) {
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        const float *row = weight + ids[n] * D;
        for (int64_t i = lane_index() * W; i < D; i += WARP * W) {
            pack<W> x = load<W>(row + i);
            for (int k = 0; k < W; ++k) x.x[k] *= scale;
            store<W>(out + n * D + i, x);
        }
    }
}

static void embedding_forward(real *out, const real *weight, const int32_t *ids, double scale, int64_t N, int64_t D) {
    LAUNCH_ROWS(embedding_rows, in_fours(D, out, weight), N, out, weight, ids, (float)scale, N, D);
}

/* A stable sort of row numbers by id, some bits of it at a time. A warp has a tile of rows and walks it 32 rows at a
 * time; counts [digits, tiles] become the places where each tile's rows of each digit begin. */
enum { DIGIT_BITS = 7, DIGITS = 1 << DIGIT_BITS, TILE = 16 * WARP };

/* Lanes with this lane's digit; none of those beyond the tile. */
__device__ static inline unsigned alike(bool valid, int digit, int bits) {
    unsigned lanes = __ballot_sync(ALL_LANES, valid);
    for (int bit = 0; bit < bits; ++bit) {
        unsigned set = __ballot_sync(ALL_LANES, digit >> bit & 1);
        lanes &= digit >> bit & 1 ? set : ~set;
    }
    return lanes;
}

static __global__ void sort_count(int32_t *__restrict__ counts, const int32_t *__restrict__ keys, int shift, int bits,
                                  int64_t N, int64_t tiles) {
    SHARED(int32_t, counted, [WARPS][DIGITS]);
    int lane = lane_index(), digits = 1 << bits;
    int32_t *count = counted[threadIdx.x / WARP];
    for (int64_t tile = warp_index(); tile < tiles; tile += warp_count()) {
        for (int d = lane; d < digits; d += WARP) count[d] = 0;
        __syncwarp(ALL_LANES);
        for (int64_t first = tile * TILE; first < (tile + 1) * TILE && first < N; first += WARP) {
            bool valid = first + lane < N;
            int digit = valid ? keys[first + lane] >> shift & (digits - 1) : 0;
            unsigned lanes = alike(valid, digit, bits);
            if (valid && __ffs((int)lanes) - 1 == lane) count[digit] += __popc(lanes);
            __syncwarp(ALL_LANES);
        }
        for (int d = lane; d < digits; d += WARP) counts[d * tiles + tile] = count[d];
        __syncwarp(ALL_LANES);
    }
}

/* Sum over this lane and those below it. */
__device__ static inline int32_t warp_prefix(int32_t x) {
    for (int by = 1; by < WARP; by *= 2) {
        int32_t below = __shfl_up_sync(ALL_LANES, x, (unsigned)by);
        if (lane_index() >= by) x += below;
    }
    return x;
}

/* A warp for each digit: counts [digits, tiles] become how many rows of the digit earlier tiles have; totals [digits].
 */
static __global__ void sort_scan(int32_t *counts, int32_t *__restrict__ totals, int digits, int64_t tiles) {
    int lane = lane_index();
    for (int64_t d = warp_index(); d < digits; d += warp_count()) {
        int32_t before = 0;
        for (int64_t first = 0; first < tiles; first += WARP) {
            int64_t at = d * tiles + first + lane;
            int32_t count = first + lane < tiles ? counts[at] : 0, sum = warp_prefix(count);
            if (first + lane < tiles) counts[at] = before + sum - count;
            before += __shfl_sync(ALL_LANES, sum, WARP - 1);
        }
        if (lane == 0) totals[d] = before;
    }
}

/* order NULL: row numbers as they are */
static __global__ void sort_place(int32_t *__restrict__ keys_out, int32_t *__restrict__ order_out,
                                  const int32_t *__restrict__ keys, const int32_t *__restrict__ order,
                                  const int32_t *__restrict__ counts, const int32_t *__restrict__ totals, int shift,
                                  int bits, int64_t N, int64_t tiles) {
    SHARED(int32_t, next_places, [WARPS][DIGITS]);
    int lane = lane_index(), digits = 1 << bits;
    int32_t *next = next_places[threadIdx.x / WARP];
    for (int64_t tile = warp_index(); tile < tiles; tile += warp_count()) {
        int32_t before = 0;
        for (int first = 0; first < digits; first += WARP) {
            int d = first + lane;
            int32_t total = d < digits ? totals[d] : 0, sum = warp_prefix(total);
            if (d < digits) next[d] = before + sum - total + counts[d * tiles + tile];
            before += __shfl_sync(ALL_LANES, sum, WARP - 1);
        }
        __syncwarp(ALL_LANES);
        for (int64_t first = tile * TILE; first < (tile + 1) * TILE && first < N; first += WARP) {
            int64_t n = first + lane;
            bool valid = n < N;
            int32_t key = valid ? keys[n] : 0;
            int digit = key >> shift & (digits - 1);
            unsigned lanes = alike(valid, digit, bits);
            int32_t place = valid ? next[digit] + __popc(lanes & ((1u << lane) - 1)) : 0;
            __syncwarp(ALL_LANES);
            if (valid) {
                keys_out[place] = key;
                order_out[place] = order ? order[n] : (int32_t)n;
                if (__ffs((int)lanes) - 1 == lane) next[digit] += __popc(lanes);
            }
            __syncwarp(ALL_LANES);
        }
    }
}

/* keys [N] and order [N] in scratch: the ids below V in rising order, and the row of each; equal ids keep theirs. */
static void sort_rows(const int32_t **keys, const int32_t **order, const int32_t *ids, struct arena *scratch, int64_t N,
                      int64_t V) {
    int all_bits = 1;
    while ((V - 1) >> all_bits) ++all_bits;
    int passes = (all_bits + DIGIT_BITS - 1) / DIGIT_BITS, bits = (all_bits + passes - 1) / passes;
    int64_t tiles = (N + TILE - 1) / TILE;
    int32_t *memory[2][2], *counts = ARENA_ARRAY(scratch, int32_t, DIGITS * tiles);
    int32_t *totals = ARENA_ARRAY(scratch, int32_t, DIGITS);
    for (int side = 0; side < 2; ++side)
        for (int what = 0; what < 2; ++what) memory[side][what] = ARENA_ARRAY(scratch, int32_t, N);
    *keys = ids, *order = NULL;
    for (int pass = 0; pass < passes; ++pass) {
        unsigned blocks = blocks_for(tiles * WARP, THREADS);
        int32_t *keys_out = memory[pass % 2][0], *order_out = memory[pass % 2][1];
        int shift = pass * bits;
        LAUNCH(sort_count, blocks, THREADS, counts, *keys, shift, bits, N, tiles);
        LAUNCH(sort_scan, blocks_for((1 << bits) * WARP, THREADS), THREADS, counts, totals, 1 << bits, tiles);
        LAUNCH(sort_place, blocks, THREADS, keys_out, order_out, *keys, *order, (const int32_t *)counts,
               (const int32_t *)totals, shift, bits, N, tiles);
        *keys = keys_out, *order = order_out;
    }
}

/* Rows by id, as a source of segments.h. */
struct embedded_rows {
    int64_t N, D;
    const int32_t *keys, *order;
    const float *dout;
    float *dweight, scale;

    template <int W> using loaded = pack<W>;
    __device__ int32_t key(int64_t j) const { return keys[j]; }
    __device__ int64_t end(int64_t j) const {
        int64_t low = j, high = N; /* position low has the key, position high has not */
        while (high - low > 1) {
            int64_t middle = (low + high) / 2;
            if (keys[middle] == keys[j])
                low = middle;
            else
                high = middle;
        }
        return high;
    }
    __device__ float *out(int32_t key) const { return dweight + key * D; }
    template <int W> __device__ pack<W> fetch(int64_t j, int64_t column) const {
        return load<W>(dout + order[j] * D + column);
    }
    template <int W> __device__ pack<W> value(int64_t, int64_t, pack<W> in) const {
        for (int k = 0; k < W; ++k) in.x[k] *= scale;
        return in;
    }
};

static void embedding_backward(real *dweight, const real *dout, const int32_t *ids, double scale, struct arena *scratch,
                               int64_t N, int64_t V, int64_t D) {
    if (N <= 0) return;
    struct arena_mark mark = arena_mark(scratch);
    struct embedded_rows source = {N, D, NULL, NULL, dout, dweight, (float)scale};
    sort_rows(&source.keys, &source.order, ids, scratch, N, V);
    segments_add(source, in_fours(D, dout, dweight), scratch);
    arena_release(scratch, mark);
}

/* A thread has the four columns of one draw. Angles are in double: a distance of thousands leaves a float no digits. */
struct waving {
    float *out;
    int64_t first, step;
    struct kept kept;
    int64_t D, quads;
    template <int W> __device__ void at(int64_t i) const {
        int64_t row = i / quads, quad = i - row * quads, half = D / 2, distance = first + row * step;
        float factor[4] = {1, 1, 1, 1};
        if (kept.drops) kept_factors(factor, kept, (uint32_t)distance, (uint32_t)quad);
        for (int k = 0; k < 4; ++k) {
            int64_t column = 4 * quad + k, wave = column < half ? column : column - half;
            if (column >= 2 * half) continue;
            double angle = (double)distance * pow(10000.0, -2.0 * (double)wave / (double)D);
            out[row * D + column] = (float)(column < half ? sin(angle) : cos(angle)) * factor[k];
        }
    }
};

static void sinusoid(real *out, int64_t first, int64_t step, struct dropout dropout, int64_t N, int64_t D) {
    int64_t quads = (D + 3) / 4;
    each_launch(waving{out, first, step, kept_of(dropout), D, quads}, N * quads);
}

void cuda_embedding_ops(struct ops *table) {
    table->embedding_forward = embedding_forward;
    table->embedding_backward = embedding_backward;
    table->sinusoid = sinusoid;
}
