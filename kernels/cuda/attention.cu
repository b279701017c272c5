/* Attention over blocks of queries, as in kernels/cpu/attention.c: scores beyond the causal edge of a block are never
 * multiplied, the backward computes them again, and the relative shift is a shift of rows: of query i of a block of Q
 * and key j, which sees N keys at most, the position score stands in column j + Q - 1 - i.
 *
 * Products are cuBLAS's, over all heads and a chunk of batch rows at once. For that the operands are packed by head,
 * [H, B, rows, D], which in bf16 is the rounding of the factors too. Scores are the memory that limits a chunk. */
#include <float.h>
#include <math.h>

#include "kernels/cuda/cast.h"

/* Queries of a block; warps, which take a row of scores each, of a block of threads; warps of one that packs, whose
 * rows share a read of the biases; scores of a row that a warp keeps in shared memory (48 KiB without asking for more);
 * rows of dq that go into one partial sum of the biases. */
enum { BLOCK = 128, WARPS = 4, PACKERS = 8, KEPT = 48 * 1024 / 4 / WARPS, PART = 32 };

/* Bytes of scores, probabilities and their gradients at once: enough rows to fill the GPU, a small part of its memory.
 */
static const int64_t SCORES_MOST = 256 << 20;

/* What one round works on: queries t0 .. t0 + Q - 1 of batch rows b0 .. b0 + B - 1, which see N keys; rows of scores
 * are ld apart. Row (h B + b) Q + i of the scores is query i of head h. */
struct tile {
    int64_t b0, B, t0, Q, N, ld;
};

/* Dropout as kernels want it: kept where the random word is at least `below` (0: no dropout). */
struct keep {
    uint32_t below;
    float scale;
};

static struct keep keep_of(struct dropout dropout) {
    struct keep keep = {(uint32_t)(dropout.p * 0x1p32), (float)(1 / (1 - dropout.p))};
    return keep;
}

/* What columns 4 quad .. 4 quad + 3 of a row are multiplied by. */
__device__ static void keep_factors(float factor[4], struct keep keep, struct rng_place place, uint32_t row,
                                    uint32_t quad) {
    uint32_t words[4];
    rng_words(words, place, row, quad);
    for (int e = 0; e < 4; ++e) factor[e] = words[e] >= keep.below ? keep.scale : 0;
}

/* The warp's place in a row of scores. */
struct row_place {
    int64_t h, b, i, first, seen, shift; /* keys first .. seen - 1, which may be none, are seen */
    struct rng_place place;              /* of dropout, with the head as lane, and its row */
    uint32_t global;
};

__device__ static struct row_place place_of_row(int64_t row, const struct tile &tile, const struct attention_shape &s) {
    struct row_place at;
    int64_t matrix = row / tile.Q;
    at.i = row - matrix * tile.Q;
    at.h = matrix / tile.B;
    at.b = tile.b0 + matrix - at.h * tile.B;
    at.shift = tile.Q - 1 - at.i;
    at.seen = tile.N - at.shift;
    at.first = s.first ? s.first[at.b] : 0;
    at.place = s.dropout.place;
    at.place.site |= (uint32_t)at.h << 16;
    at.global = (uint32_t)((s.row_first + at.b) * s.T + tile.t0 + at.i);
    return at;
}

/* Scores of keys j .. j + 3 of a row, -infinity where they aren't seen; position NULL: absolute. */
__device__ static void load_scores(float x[4], const float *score, const float *position, int64_t j,
                                   const struct row_place &at) {
    load<4>(x, score + j);
    for (int e = 0; e < 4; ++e)
        x[e] = j + e >= at.first && j + e < at.seen ? x[e] + (position ? position[j + e + at.shift] : 0) : -INFINITY;
}

/* p = dropout(softmax(score + shift(position))) and lse. p may be score: a lane writes what it alone has read. */
template <typename T>
__global__ static void probabilities(T *p, float *lse, const float *score, const float *position, struct keep keep,
                                     struct tile tile, struct attention_shape s) {
    DYN_SHARED(float, rows);
    int lane = threadIdx.x % WARP;
    int64_t fits = tile.ld < KEPT ? tile.ld : (int64_t)KEPT, step = (int64_t)gridDim.x * WARPS;
    float *kept = rows + threadIdx.x / WARP * fits;
    for (int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP; row < s.H * tile.B * tile.Q; row += step) {
        struct row_place at = place_of_row(row, tile, s);
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
        float inverse = sum == 0 ? 0 : 1 / sum; /* a query in padding: probability 0 */
        for (int64_t j = 4 * lane; j < tile.ld; j += 4 * WARP) {
            float x[4] = {0, 0, 0, 0};
            if (j < at.seen) {
                if (j < fits)
                    load<4>(x, kept + j);
                else
                    load_scores(x, scores, positions, j, at);
                for (int e = 0; e < 4; ++e) x[e] = expf(x[e] - highest) * inverse;
                if (keep.below > 0) {
                    float factor[4];
                    keep_factors(factor, keep, at.place, at.global, (uint32_t)(j / 4));
                    for (int e = 0; e < 4; ++e) x[e] *= factor[e];
                }
            }
            store<4>(p + row * tile.ld + j, x);
        }
        if (lane == 0) lse[(at.b * s.H + at.h) * s.T + tile.t0 + at.i] = sum == 0 ? 0 : highest + logf(sum);
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
                                       float scale, struct keep keep, struct tile tile, struct attention_shape s) {
    int lane = threadIdx.x % WARP;
    int64_t step = (int64_t)gridDim.x * WARPS;
    for (int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP; row < s.H * tile.B * tile.Q; row += step) {
        struct row_place at = place_of_row(row, tile, s);
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
                if (keep.below > 0) keep_factors(factor, keep, at.place, at.global, (uint32_t)(j / 4));
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
                __syncwarp(); /* shuffles do not order what they stand between: position is read, shifted written */
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
    int64_t step = (int64_t)gridDim.x * PACKERS;
    for (int64_t row = (int64_t)blockIdx.x * PACKERS + threadIdx.x / WARP; row < B * rows; row += step) {
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
    unsigned blocks = blocks_for(B * rows * WARP, PACKERS * WARP);
    int H = (int)s->H, D = (int)s->D;
    if (wide)
        LAUNCH((pack<T, 4>), blocks, PACKERS * WARP, first, first_bias, second, second_bias, in, stride, B, rows, H, D,
               padded(D));
    else
        LAUNCH((pack<T, 1>), blocks, PACKERS * WARP, first, first_bias, second, second_bias, in, stride, B, rows, H, D,
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

/* What an operation works in, for `rows` batch rows at once. Q is BLOCK or T, T the type of factors, and [..., D] of
 * factors padded. */
template <typename T> struct work {
    int64_t rows;
    T *k, *v, *r;                 /* [H, B, S, D], r [H, S, D] */
    T *qw, *qr, *dout;            /* [H, B, Q, D] q plus its bias; the backward's dout */
    float *score, *position, *dp; /* [H, B, Q, S] */
    T *p, *dscore, *shifted;      /* as score; in fp32 the three above */
    float *through, *past;        /* [H, B, Q, D] of out, or of dq by way of keys and of distances */
    float *dk, *dv, *dr;          /* [H, B, S, D], dr [H, S, D] */
    float *partial;               /* [parts, 2, H, D] of the biases' gradients */
    int64_t parts;                /* taken so far */
};

static int64_t block_rows(const struct attention_shape *s) { return s->T < BLOCK ? s->T : (int64_t)BLOCK; }

static int64_t parts_of(int64_t rows) { return (rows + PART - 1) / PART; }

/* Chunks of equal size, each with at most SCORES_MOST bytes of scores and their like. */
static int64_t chunk_rows(const struct attention_shape *s, int64_t score_bytes) {
    int64_t most = SCORES_MOST / (s->H * block_rows(s) * padded(s->S) * score_bytes);
    most = most < 1 ? 1 : most;
    int64_t chunks = (s->B + most - 1) / most;
    return (s->B + chunks - 1) / chunks;
}

template <typename T>
static struct work<T> work_take(struct arena *scratch, const struct attention_shape *s, bool relative, bool backward) {
    struct work<T> w = {};
    bool share = sizeof(T) == sizeof(float);
    int64_t floats = 1 + relative + backward, factors = share ? 0 : 1 + (backward ? 1 + relative : 0);
    w.rows = chunk_rows(s, floats *(int64_t)sizeof(float) + factors * (int64_t)sizeof(T));
    int64_t matrices = s->H * w.rows, Q = block_rows(s), ld = padded(s->D), scores = matrices * Q * padded(s->S);
    w.k = ARENA_ARRAY(scratch, T, matrices * s->S * ld);
    w.v = ARENA_ARRAY(scratch, T, matrices * s->S * ld);
    w.qw = ARENA_ARRAY(scratch, T, matrices *Q *ld);
    w.score = ARENA_ARRAY(scratch, float, scores);
    w.p = share ? (T *)w.score : ARENA_ARRAY(scratch, T, scores);
    w.through = ARENA_ARRAY(scratch, float, matrices *Q * s->D);
    if (relative) {
        w.r = ARENA_ARRAY(scratch, T, s->H * s->S * ld);
        w.qr = ARENA_ARRAY(scratch, T, matrices * Q * ld);
        w.position = ARENA_ARRAY(scratch, float, scores);
    }
    if (!backward) return w;
    w.dout = ARENA_ARRAY(scratch, T, matrices *Q *ld);
    w.dp = ARENA_ARRAY(scratch, float, scores);
    w.dscore = share ? (T *)w.dp : ARENA_ARRAY(scratch, T, scores);
    w.dk = ARENA_ARRAY(scratch, float, matrices * s->S * s->D);
    w.dv = ARENA_ARRAY(scratch, float, matrices * s->S * s->D);
    if (!relative) return w;
    w.shifted = share ? (T *)w.position : ARENA_ARRAY(scratch, T, scores);
    w.past = ARENA_ARRAY(scratch, float, matrices *Q * s->D);
    w.dr = ARENA_ARRAY(scratch, float, s->H * s->S * s->D);
    int64_t tiles = (s->B + w.rows - 1) / w.rows * ((s->T + Q - 1) / Q);
    w.partial = ARENA_ARRAY(scratch, float, tiles *parts_of(w.rows *Q) * 2 * s->H * s->D);
    return w;
}

static struct tile
tile_of(const struct attention_shape *s, int64_t b0, int64_t rows, int64_t t0) {
    struct tile tile = {b0, rows, t0, s->T - t0, 0, 0};
    if (tile.B > s->B - b0) tile.B = s->B - b0;
    if (tile.Q > BLOCK) tile.Q = BLOCK;
    tile.N = s->S - s->T + t0 + tile.Q;
    tile.ld = padded(tile.N);
    return tile;
}

template <typename T>
static void pack_keys(const struct work<T> *w, const real *k, const real *v, int64_t b0, int64_t B,
                      const struct attention_shape *s) {
    int64_t batch = s->S * s->H * s->D;
    launch_pack<T>(w->k, NULL, NULL, NULL, k + b0 * batch, batch, B, s->S, s);
    launch_pack<T>(w->v, NULL, NULL, NULL, v + b0 * batch, batch, B, s->S, s);
}

/* r's last N rows: the distances that a block sees. */
template <typename T>
static struct factor distances(const struct work<T> *w, int64_t N, const struct attention_shape *s) {
    return factor_row(factor_of(w->r, padded(s->D), s->S * padded(s->D)), s->S - N);
}

/* Scores of the tile through the keys, and against all distances; both scaled. */
template <typename T>
static void tile_scores(const struct work<T> *w, const real *q, const real *bias_w, const real *bias_r,
                        const struct tile *tile, const struct attention_shape *s) {
    int64_t ld = padded(s->D), batch = s->T * s->H * s->D;
    double scale = 1 / sqrt((double)s->D);
    launch_pack<T>(w->qw, bias_w, w->qr, bias_r, q + tile->b0 * batch + tile->t0 * s->H * s->D, batch, tile->B, tile->Q,
                   s);
    multiply_factors(false, true, tile->Q, tile->N, s->D, scale, factor_of(w->qw, ld, tile->Q * ld),
                     factor_of(w->k, ld, s->S * ld), 0, w->score, tile->ld, tile->Q * tile->ld, s->H * tile->B);
    if (w->r)
        multiply_factors(false, true, tile->B * tile->Q, tile->N, s->D, scale,
                         factor_of(w->qr, ld, tile->B * tile->Q * ld), distances(w, tile->N, s), 0, w->position,
                         tile->ld, tile->B * tile->Q * tile->ld, s->H);
}

template <typename T>
static void forward_tile(const struct work<T> *w, real *out, real *lse, const real *q, const real *bias_w,
                         const real *bias_r, const struct tile *tile, const struct attention_shape *s) {
    int64_t ld = padded(s->D), matrices = s->H * tile->B, batch = s->T * s->H * s->D;
    int64_t kept = tile->ld < KEPT ? tile->ld : (int64_t)KEPT;
    tile_scores(w, q, bias_w, bias_r, tile, s);
    LAUNCH_SHARED((probabilities<T>), blocks_for(matrices * tile->Q * WARP, WARPS * WARP), WARPS * WARP,
                  (size_t)(WARPS * kept) * sizeof(float), w->p, lse, w->score, w->position, keep_of(s->dropout), *tile,
                  *s);
    multiply_factors(false, false, tile->Q, s->D, tile->N, 1, factor_of(w->p, tile->ld, tile->Q * tile->ld),
                     factor_of(w->v, ld, s->S * ld), 0, w->through, s->D, tile->Q * s->D, matrices);
    launch_unpack(out + tile->b0 * batch + tile->t0 * s->H * s->D, batch, w->through, tile->B, tile->Q, s);
}

template <typename T>
static void forward(real *out, real *lse, const real *q, const real *k, const real *v, const real *r,
                    const real *bias_w, const real *bias_r, struct arena *scratch, const struct attention_shape *s) {
    struct arena_mark mark = arena_mark(scratch);
    struct work<T> w = work_take<T>(scratch, s, r, false);
    if (r) launch_pack<T>(w.r, NULL, NULL, NULL, r, 0, 1, s->S, s);
    for (int64_t b0 = 0; b0 < s->B; b0 += w.rows) {
        pack_keys(&w, k, v, b0, tile_of(s, b0, w.rows, 0).B, s);
        for (int64_t t0 = 0; t0 < s->T; t0 += BLOCK) {
            struct tile tile = tile_of(s, b0, w.rows, t0);
            forward_tile(&w, out, lse, q, bias_w, bias_r, &tile, s);
        }
    }
    arena_release(scratch, mark);
}

/* The products of the gradients of scores; through is dq by way of the keys. The chunk's first tile sees all keys, and
 * sets dk and dv. */
template <typename T>
static void key_gradients(const struct work<T> *w, const struct tile *tile, const struct attention_shape *s) {
    int64_t ld = padded(s->D), matrices = s->H * tile->B, rows = tile->Q * ld, keys = s->S * s->D;
    double old = tile->N < s->S ? 1 : 0;
    struct factor p = factor_of(w->p, tile->ld, tile->Q * tile->ld);
    struct factor dscore = factor_of(w->dscore, tile->ld, tile->Q * tile->ld);
    multiply_factors(true, false, tile->N, s->D, tile->Q, 1, p, factor_of(w->dout, ld, rows), old, w->dv, s->D, keys,
                     matrices);
    multiply_factors(true, false, tile->N, s->D, tile->Q, 1, dscore, factor_of(w->qw, ld, rows), old, w->dk, s->D, keys,
                     matrices);
    multiply_factors(false, false, tile->Q, s->D, tile->N, 1, dscore, factor_of(w->k, ld, s->S * ld), 0, w->through,
                     s->D, tile->Q * s->D, matrices);
}

/* The same by way of the distances, whose gradient adds up over all chunks. */
template <typename T>
static void distance_gradients(const struct work<T> *w, const struct tile *tile, const struct attention_shape *s) {
    int64_t ld = padded(s->D), rows = tile->B * tile->Q;
    struct factor shifted = factor_of(w->shifted, tile->ld, rows * tile->ld);
    multiply_factors(true, false, tile->N, s->D, rows, 1, shifted, factor_of(w->qr, ld, rows * ld),
                     tile->N < s->S || tile->b0 > 0 ? 1 : 0, w->dr + (s->S - tile->N) * s->D, s->D, s->S * s->D, s->H);
    multiply_factors(false, false, rows, s->D, tile->N, 1, shifted, distances(w, tile->N, s), 0, w->past, s->D,
                     rows * s->D, s->H);
}

template <typename T>
static void backward_tile(struct work<T> *w, real *dq, const real *dout, const real *out, const real *lse,
                          const real *q, const real *bias_w, const real *bias_r, const struct tile *tile,
                          const struct attention_shape *s) {
    int64_t ld = padded(s->D), matrices = s->H * tile->B, batch = s->T * s->H * s->D;
    int64_t first = tile->b0 * batch + tile->t0 * s->H * s->D;
    tile_scores(w, q, bias_w, bias_r, tile, s);
    launch_pack<T>(w->dout, NULL, NULL, NULL, dout + first, batch, tile->B, tile->Q, s);
    multiply_factors(false, true, tile->Q, tile->N, s->D, 1, factor_of(w->dout, ld, tile->Q * ld),
                     factor_of(w->v, ld, s->S * ld), 0, w->dp, tile->ld, tile->Q * tile->ld, matrices);
    LAUNCH((score_gradients<T>), blocks_for(matrices * tile->Q * WARP, WARPS * WARP), WARPS * WARP, w->p, w->dscore,
           w->shifted, w->score, w->position, w->dp, dout, out, lse, (float)(1 / sqrt((double)s->D)),
           keep_of(s->dropout), *tile, *s);
    key_gradients(w, tile, s);
    if (!w->r) {
        launch_unpack(dq + first, batch, w->through, tile->B, tile->Q, s);
        return;
    }
    distance_gradients(w, tile, s);
    int64_t parts = parts_of(tile->B * tile->Q), columns = s->H * ((s->D + WARP - 1) / WARP);
    LAUNCH(unpack_queries, blocks_for(parts * columns * WARP, WARPS * WARP), WARPS * WARP, dq,
           w->partial + w->parts * 2 * s->H * s->D, w->through, w->past, parts, *tile, *s);
    w->parts += parts;
}

template <typename T>
static void backward(real *dq, real *dk, real *dv, real *dr, real *dbias_w, real *dbias_r, const real *dout,
                     const real *out, const real *lse, const real *q, const real *k, const real *v, const real *r,
                     const real *bias_w, const real *bias_r, struct arena *scratch, const struct attention_shape *s) {
    struct arena_mark mark = arena_mark(scratch);
    struct work<T> w = work_take<T>(scratch, s, r, true);
    int64_t row = s->H * s->D, batch = s->S * row;
    if (r) launch_pack<T>(w.r, NULL, NULL, NULL, r, 0, 1, s->S, s);
    for (int64_t b0 = 0; b0 < s->B; b0 += w.rows) {
        int64_t B = tile_of(s, b0, w.rows, 0).B;
        pack_keys(&w, k, v, b0, B, s);
        for (int64_t t0 = (s->T - 1) / BLOCK * BLOCK; t0 >= 0; t0 -= BLOCK) {
            struct tile tile = tile_of(s, b0, w.rows, t0);
            backward_tile(&w, dq, dout, out, lse, q, bias_w, bias_r, &tile, s);
        }
        launch_unpack(dk + b0 * batch, batch, w.dk, B, s->S, s);
        launch_unpack(dv + b0 * batch, batch, w.dv, B, s->S, s);
    }
    if (r) {
        launch_unpack(dr, 0, w.dr, 1, s->S, s);
        add_partials(dbias_w, w.partial, 2 * row, 1, w.parts, row);
        add_partials(dbias_r, w.partial + row, 2 * row, 1, w.parts, row);
    }
    arena_release(scratch, mark);
}

static void attention_forward(real *out, real *lse, const real *q, const real *k, const real *v, const real *r,
                              const real *bias_w, const real *bias_r, struct arena *scratch,
                              const struct attention_shape *s) {
    if (s->B == 0 || s->T == 0) return;
    (cuda.precision == PRECISION_BF16 ? forward<__nv_bfloat16> : forward<float>)(out, lse, q, k, v, r, bias_w, bias_r,
                                                                                 scratch, s);
}

static void attention_backward(real *dq, real *dk, real *dv, real *dr, real *dbias_w, real *dbias_r, const real *dout,
                               const real *out, const real *lse, const real *q, const real *k, const real *v,
                               const real *r, const real *bias_w, const real *bias_r, struct arena *scratch,
                               const struct attention_shape *s) {
    size_t bytes = (size_t)(s->S * s->H * s->D) * sizeof(real);
    if (s->B == 0 || s->T == 0) { /* nothing asks: no gradients */
        if (s->B > 0) device->set(dk, 0, (size_t)s->B * bytes);
        if (s->B > 0) device->set(dv, 0, (size_t)s->B * bytes);
        if (r) device->set(dr, 0, bytes);
        return;
    }
    (cuda.precision == PRECISION_BF16 ? backward<__nv_bfloat16> : backward<float>)(dq, dk, dv, dr, dbias_w, dbias_r,
                                                                                   dout, out, lse, q, k, v, r, bias_w,
                                                                                   bias_r, scratch, s);
}

void cuda_attention_ops(struct ops *table) {
    table->attention_forward = attention_forward;
    table->attention_backward = attention_backward;
}
