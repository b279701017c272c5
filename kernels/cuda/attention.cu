/* Attention over blocks of queries, as in kernels/cpu/attention.c: scores beyond the causal edge of a block are never
 * multiplied, the backward computes them again, and the relative shift is a shift of rows: of query i of a block of Q
 * and key j, which sees N keys at most, the position score stands in column j + Q - 1 - i.
 *
 * Products are cuBLAS's, over all heads and a chunk of batch rows at once. For that the operands are packed by head,
 * [H, B, rows, D], which in bf16 is the rounding of the factors too. Scores are the memory that limits a chunk. */
#include <float.h>
#include <math.h>

#include "kernels/cuda/cast.h"

/* Queries of a block; warps, which take a row of scores each, of a block of threads; scores of a row that a warp keeps
 * in shared memory (48 KiB without asking for more); rows of dq that go into one partial sum of the biases. */
enum { BLOCK = 128, WARPS = 4, KEPT = 48 * 1024 / 4 / WARPS, PART = 32 };

/* Bytes of scores, probabilities and their gradients at once: enough rows to fill the GPU, a small part of its memory.
 */
static const int64_t SCORES_MOST = 256 << 20;

/* What one round works on: queries t0 .. t0 + Q - 1 of batch rows b0 .. b0 + B - 1, which see N keys; rows of scores
 * are ld apart. Row (h B + b) Q + i of the scores is query i of head h. */
struct tile {
    int64_t b0, B, t0, Q, N, ld;
};

/* What dropout multiplies columns 4 quad .. 4 quad + 3 of a row by. */
__device__ static void keep_factors(float factor[4], struct dropout dropout, uint32_t row, uint32_t quad) {
    uint32_t words[4], threshold = (uint32_t)(dropout.p * 0x1p32);
    float scale = (float)(1 / (1 - dropout.p));
    rng_words(words, dropout.place, row, quad);
    for (int e = 0; e < 4; ++e) factor[e] = words[e] >= threshold ? scale : 0;
}

/* The warp's place in a row of scores. */
struct row_place {
    int64_t h, b, i, seen, shift;
    uint32_t global;
};

__device__ static struct row_place row_place(int64_t row, const struct tile &tile, const struct attention_shape &s) {
    struct row_place at;
    int64_t matrix = row / tile.Q;
    at.i = row - matrix * tile.Q;
    at.h = matrix / tile.B;
    at.b = tile.b0 + matrix - at.h * tile.B;
    at.shift = tile.Q - 1 - at.i;
    at.seen = tile.N - at.shift;
    at.global = (uint32_t)((s.row_first + at.b) * s.T + tile.t0 + at.i);
    return at;
}

__device__ static struct dropout head_dropout(struct dropout dropout, int64_t h) {
    dropout.place.site |= (uint32_t)h << 16;
    return dropout;
}

/* Scores of keys j .. j + 3 of a row, -infinity where they aren't seen; position NULL: absolute. */
__device__ static void load_scores(float x[4], const float *score, const float *position, int64_t j,
                                   const struct row_place &at) {
    load<4>(x, score + j);
    for (int e = 0; e < 4; ++e) x[e] = j + e < at.seen ? x[e] + (position ? position[j + e + at.shift] : 0) : -INFINITY;
}

/* p = dropout(softmax(score + shift(position))) and lse. p may be score: a lane writes what it alone has read. */
template <typename T>
__global__ static void probabilities(T *p, float *lse, const float *score, const float *position, struct tile tile,
                                     struct attention_shape s) {
    DYN_SHARED(float, rows);
    int lane = threadIdx.x % WARP;
    int64_t fits = tile.ld < KEPT ? tile.ld : KEPT, step = (int64_t)gridDim.x * WARPS;
    float *kept = rows + threadIdx.x / WARP * fits;
    for (int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP; row < s.H * tile.B * tile.Q; row += step) {
        struct row_place at = row_place(row, tile, s);
        struct dropout dropout = head_dropout(s.dropout, at.h);
        const float *scores = score + row * tile.ld, *positions = position ? position + row * tile.ld : NULL;
        float top = -FLT_MAX, sum = 0;
        for (int64_t j = 4 * lane; j < at.seen; j += 4 * WARP) {
            float x[4];
            load_scores(x, scores, positions, j, at);
            if (j < fits) store<4>(kept + j, x);
            float above = fmaxf(fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3])), top);
            sum *= expf(top - above);
            for (int e = 0; e < 4; ++e) sum += expf(x[e] - above);
            top = above;
        }
        float highest = warp_max(top);
        sum = warp_sum(sum * expf(top - highest));
        float inverse = 1 / sum;
        for (int64_t j = 4 * lane; j < tile.ld; j += 4 * WARP) {
            float x[4] = {0, 0, 0, 0};
            if (j < at.seen) {
                if (j < fits)
                    load<4>(x, kept + j);
                else
                    load_scores(x, scores, positions, j, at);
                for (int e = 0; e < 4; ++e) x[e] = expf(x[e] - highest) * inverse;
                if (dropout.p > 0) {
                    float factor[4];
                    keep_factors(factor, dropout, at.global, (uint32_t)(j / 4));
                    for (int e = 0; e < 4; ++e) x[e] *= factor[e];
                }
            }
            store<4>(p + row * tile.ld + j, x);
        }
        if (lane == 0) lse[(at.b * s.H + at.h) * s.T + tile.t0 + at.i] = highest + logf(sum);
    }
}

/* Of a row's gradients x, four a lane, the four `by` (< 4) columns to the left of them: the last values of the lane
 * before, or what lane 31 had in `last`, then own ones. */
__device__ static void shift_row(float out[4], const float x[4], float last[4], int by) {
    int lane = threadIdx.x % WARP;
    float both[8];
    for (int e = 0; e < 4; ++e) {
        float before = __shfl_sync(ALL_LANES, lane == WARP - 1 ? last[e] : x[e], (lane + WARP - 1) % WARP);
        both[e] = before;
        both[e + 4] = x[e];
        last[e] = x[e];
    }
    if (by & 1)
        for (int e = 7; e > 0; --e) both[e] = both[e - 1];
    if (by & 2)
        for (int e = 7; e > 1; --e) both[e] = both[e - 2];
    for (int e = 0; e < 4; ++e) out[e] = both[e + 4];
}

/* From scores, their gradient through v (dp) and lse: p, the probabilities after dropout, dscore = scale (p dp - P
 * rowsum(dout out)), and dscore with its rows shifted back to the columns of distances (NULL: absolute), all of the
 * tile's shape. They may be score, dp and position: what a lane writes itself and the lanes before it have read. */
template <typename T>
__global__ static void score_gradients(T *p, T *dscore, T *shifted, const float *score, const float *position,
                                       const float *dp, const float *dout, const float *out, const float *lse,
                                       float scale, struct tile tile, struct attention_shape s) {
    int lane = threadIdx.x % WARP;
    int64_t step = (int64_t)gridDim.x * WARPS;
    for (int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP; row < s.H * tile.B * tile.Q; row += step) {
        struct row_place at = row_place(row, tile, s);
        struct dropout dropout = head_dropout(s.dropout, at.h);
        const float *scores = score + row * tile.ld, *positions = position ? position + row * tile.ld : NULL;
        int64_t t = tile.t0 + at.i, query = ((at.b * s.T + t) * s.H + at.h) * s.D, first = row * tile.ld;
        float log_sum = lse[(at.b * s.H + at.h) * s.T + t], delta = 0, last[4] = {0, 0, 0, 0}, zero[4] = {0, 0, 0, 0};
        for (int64_t d = lane; d < s.D; d += WARP) delta += dout[query + d] * out[query + d];
        delta = warp_sum(delta);
        int64_t whole = at.shift / 4 * 4;
        if (shifted)
            for (int64_t j = 4 * lane; j < whole; j += 4 * WARP) store<4>(shifted + first + j, zero);
        for (int64_t j0 = 0; j0 < tile.ld; j0 += 4 * WARP) {
            int64_t j = j0 + 4 * lane;
            float x[4] = {0, 0, 0, 0}, g[4] = {0, 0, 0, 0}, factor[4] = {1, 1, 1, 1};
            if (j < at.seen) {
                load_scores(x, scores, positions, j, at);
                load<4>(g, dp + first + j);
                if (dropout.p > 0) keep_factors(factor, dropout, at.global, (uint32_t)(j / 4));
                for (int e = 0; e < 4; ++e) {
                    float kept = expf(x[e] - log_sum);
                    x[e] = kept * factor[e];
                    g[e] = j + e < at.seen ? scale * (x[e] * g[e] - kept * delta) : 0;
                }
            }
            if (j < tile.ld) {
                store<4>(p + first + j, x);
                store<4>(dscore + first + j, g);
            }
            if (shifted) {
                float moved[4];
                shift_row(moved, g, last, (int)(at.shift % 4));
                if (j + whole < tile.ld) store<4>(shifted + first + j + whole, moved);
            }
        }
    }
}

/* first, second (NULL: none) [H, B, rows, ld] = in [B, rows, H, D] plus its bias [H, D] (NULL: none); batch rows of in
 * are `stride` apart. A warp takes a row. */
template <typename T, int WIDTH>
__global__ static void pack(T *first, const float *first_bias, T *second, const float *second_bias, const float *in,
                            int64_t stride, int64_t B, int64_t rows, int H, int D, int64_t ld) {
    int lane = threadIdx.x % WARP, pieces = D / WIDTH;
    int64_t step = (int64_t)gridDim.x * WARPS;
    for (int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP; row < B * rows; row += step) {
        int64_t b = row / rows;
        const float *from = in + b * stride + (row - b * rows) * H * D;
        for (int i = lane; i < H * pieces; i += WARP) {
            int h = i / pieces, at = i * WIDTH;
            int64_t to = (h * B * rows + row) * ld + at - h * D;
            float x[WIDTH], y[WIDTH], bias[WIDTH] = {0};
            load<WIDTH>(x, from + at);
            if (first_bias) load<WIDTH>(bias, first_bias + at);
            for (int e = 0; e < WIDTH; ++e) y[e] = x[e] + bias[e];
            store<WIDTH>(first + to, y);
            if (second) {
                load<WIDTH>(bias, second_bias + at);
                for (int e = 0; e < WIDTH; ++e) y[e] = x[e] + bias[e];
                store<WIDTH>(second + to, y);
            }
        }
    }
}

template <typename T>
static void launch_pack(T *first, const float *first_bias, T *second, const float *second_bias, const float *in,
                        int64_t stride, int64_t B, int64_t rows, const struct attention_shape *s) {
    bool wide = rows_of_quads(in, s->D) && (!first_bias || rows_of_quads(first_bias, s->D)) &&
                (!second || rows_of_quads(second_bias, s->D));
    unsigned blocks = blocks_for(B * rows * WARP, WARPS * WARP);
    int H = (int)s->H, D = (int)s->D;
    if (wide)
        LAUNCH((pack<T, 4>), blocks, WARPS * WARP, first, first_bias, second, second_bias, in, stride, B, rows, H, D,
               padded(D));
    else
        LAUNCH((pack<T, 1>), blocks, WARPS * WARP, first, first_bias, second, second_bias, in, stride, B, rows, H, D,
               padded(D));
}

/* out [B, rows, H, D], batch rows `stride` apart, = in [H, B, rows, D]. A warp takes a row. */
template <int WIDTH>
__global__ static void unpack(float *out, int64_t stride, const float *in, int64_t B, int64_t rows, int H, int D) {
    int lane = threadIdx.x % WARP, pieces = D / WIDTH;
    int64_t step = (int64_t)gridDim.x * WARPS;
    for (int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP; row < B * rows; row += step) {
        int64_t b = row / rows;
        float *to = out + b * stride + (row - b * rows) * H * D;
        for (int i = lane; i < H * pieces; i += WARP) {
            int h = i / pieces, at = i * WIDTH;
            float x[WIDTH];
            load<WIDTH>(x, in + (h * B * rows + row) * D + at - h * D);
            store<WIDTH>(to + at, x);
        }
    }
}

static void launch_unpack(float *out, int64_t stride, const float *in, int64_t B, int64_t rows,
                          const struct attention_shape *s) {
    unsigned blocks = blocks_for(B * rows * WARP, WARPS * WARP);
    if (rows_of_quads(out, s->D))
        LAUNCH((unpack<4>), blocks, WARPS * WARP, out, stride, in, B, rows, (int)s->H, (int)s->D);
    else
        LAUNCH((unpack<1>), blocks, WARPS * WARP, out, stride, in, B, rows, (int)s->H, (int)s->D);
}

/* dq [B, T, H, D] of the tile = through + past [H, B, Q, D], its parts by way of the keys and the distances, and the
 * sums of each over PART rows, partial [parts, 2, H, D]: a warp takes a part of 32 columns of a head. */
__global__ static void unpack_queries(float *dq, float *partial, const float *through, const float *past, int64_t parts,
                                      struct tile tile, struct attention_shape s) {
    int64_t tiles = (s.D + WARP - 1) / WARP, rows = tile.B * tile.Q, step = (int64_t)gridDim.x * WARPS;
    int64_t unit = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    for (; unit < parts * s.H * tiles; unit += step) {
        int64_t slot = unit / tiles, part = slot / s.H, h = slot - part * s.H;
        int64_t d = (unit - slot * tiles) * WARP + threadIdx.x % WARP;
        int64_t end = (part + 1) * PART < rows ? (part + 1) * PART : rows;
        float sum_through = 0, sum_past = 0;
        if (d < s.D) {
            for (int64_t row = part * PART; row < end; ++row) {
                int64_t from = (h * rows + row) * s.D + d, b = row / tile.Q, t = tile.t0 + row - b * tile.Q;
                float x = through[from], y = past[from];
                dq[(((tile.b0 + b) * s.T + t) * s.H + h) * s.D + d] = x + y;
                sum_through += x;
                sum_past += y;
            }
            partial[(2 * part * s.H + h) * s.D + d] = sum_through;
            partial[((2 * part + 1) * s.H + h) * s.D + d] = sum_past;
        }
    }
}
