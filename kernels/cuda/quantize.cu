/* Tokens to codes, and what codes learn from their tokens. */
#include "kernels/cuda/pack.h"
#include "kernels/cuda/sort.h"

/* ---- The nearest code ---- */

/* squares [M] = |v|^2, added up in T */
template <typename T> __global__ static void square_rows(T *squares, const real *v, int64_t M, int64_t D) {
    for (int64_t m = warp_here(); m < M; m += warps_here()) {
        T sum = 0;
        for (int64_t i = lane_here(); i < D; i += WARP) sum += (T)v[m * D + i] * v[m * D + i];
        sum = warp_sum(sum);
        if (lane_here() == 0) squares[m] = sum;
    }
}

/* products [N, M] z . v become distances where `keep`; a warp per row */
__global__ static void nearest_each(int32_t *codes, real *products, const real *squares, bool keep, int64_t N,
                                    int64_t M) {
    for (int64_t n = warp_here(); n < N; n += warps_here()) {
        real *row = products + n * M, least = 0;
        int32_t code = INT32_MAX; /* of a lane that has seen none */
#pragma unroll 4
        for (int64_t m = lane_here(); m < M; m += WARP) {
            real distance = squares[m] - 2 * row[m];
            if (keep) row[m] = distance;
            if (code != INT32_MAX && !(distance < least)) continue;
            least = distance;
            code = (int32_t)m;
        }
        for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
            real other = __shfl_down_sync(ALL_LANES, least, (unsigned)lanes);
            int32_t its = __shfl_down_sync(ALL_LANES, code, (unsigned)lanes);
            if (its == INT32_MAX || !(other < least || (other == least && its < code))) continue;
            least = other;
            code = its;
        }
        if (lane_here() == 0) codes[n] = code;
    }
}

static void nearest_code(int32_t *codes, real *distance, const real *z, const real *table, struct arena *scratch,
                         int64_t N, int64_t M, int64_t D) {
    if (!N) return;
    const int64_t most = (int64_t)(64 << 20) / (int64_t)sizeof(real); /* products at once where nobody wants them */
    struct arena_mark mark = arena_mark(scratch);
    int64_t chunk = distance || N * M <= most ? N : M < most ? most / M : 1;
    real *squares = ARENA_ARRAY(scratch, real, M), *own = distance ? NULL : ARENA_ARRAY(scratch, real, chunk * M);
    LAUNCH((square_rows<real>), warp_blocks(M), ROW_THREADS, squares, table, M, D);
    for (int64_t n = 0; n < N; n += chunk) {
        int64_t rows = N - n < chunk ? N - n : chunk;
        real *products = distance ? distance : own;
        ops->linear_exact_forward(products, z + n * D, table, NULL, rows, M, D);
        LAUNCH(nearest_each, warp_blocks(rows), ROW_THREADS, codes + n, products, squares, distance != NULL, rows, M);
    }
    arena_release(scratch, mark);
}

/* ---- Rows and their codes ---- */

template <int WIDTH>
__global__ static void quantize_each(real *out, const real *x, const real *table, const int32_t *codes, real keep,
                                     real take, int64_t N, int64_t D) {
    for (int64_t n = warp_here(); n < N; n += warps_here()) {
        auto *to = row_at<WIDTH>(out, n, D);
        auto *from = row_at<WIDTH>(x, n, D), *code = row_at<WIDTH>(table, codes[n], D);
        for (int64_t i = lane_here(); i < D / WIDTH; i += WARP) {
            pack<real, WIDTH> v = code[i], old = {};
            if (keep != 0) old = from[i];
            for (int c = 0; c < WIDTH; ++c) v.at[c] = keep * old.at[c] + take * v.at[c];
            to[i] = v;
        }
    }
}

static void quantize(real *out, const real *x, const real *table, const int32_t *codes, double keep, double take,
                     int64_t N, int64_t D) {
    if (!N) return;
    if (is_wide(D, out, x, table))
        LAUNCH((quantize_each<WIDE>), warp_blocks(N), ROW_THREADS, out, x, table, codes, (real)keep, (real)take, N, D);
    else
        LAUNCH((quantize_each<1>), warp_blocks(N), ROW_THREADS, out, x, table, codes, (real)keep, (real)take, N, D);
}

/* parts: one per warp of the grid */
template <int WIDTH>
__global__ static void error_each(double *parts, const real *x, const real *table, const int32_t *codes, int64_t N,
                                  int64_t D) {
    double total = 0;
    for (int64_t n = warp_here(); n < N; n += warps_here()) {
        auto *row = row_at<WIDTH>(x, n, D), *code = row_at<WIDTH>(table, codes[n], D);
        real sum = 0;
        for (int64_t i = lane_here(); i < D / WIDTH; i += WARP) {
            pack<real, WIDTH> a = row[i], v = code[i];
            for (int c = 0; c < WIDTH; ++c) sum += (v.at[c] - a.at[c]) * (v.at[c] - a.at[c]);
        }
        total += sum;
    }
    total = warp_sum(total);
    if (lane_here() == 0) parts[warp_here()] = total;
}

/* One block of ROW_THREADS: out [1] = sum of parts [n] */
__global__ static void add_parts(double *out, const double *parts, int64_t n) {
    SHARED(double, warps, [ROW_THREADS / WARP]);
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS) sum += parts[i];
    sum = warp_sum(sum);
    if (lane_here() == 0) warps[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < ROW_THREADS / WARP; ++warp) sum += warps[warp];
        *out = sum;
    }
}

static void code_error(double *out, const real *x, const real *table, const int32_t *codes, int64_t N, int64_t D) {
    unsigned blocks = warp_blocks(N);
    int64_t warps = (int64_t)blocks * (ROW_THREADS / WARP);
    double *parts = (double *)cuda_workspace(WORKSPACE_PARTIAL, (size_t)warps * sizeof *parts);
    if (is_wide(D, x, table))
        LAUNCH((error_each<WIDE>), blocks, ROW_THREADS, parts, x, table, codes, N, D);
    else
        LAUNCH((error_each<1>), blocks, ROW_THREADS, parts, x, table, codes, N, D);
    LAUNCH(add_parts, 1, ROW_THREADS, out, parts, warps);
}

/* ---- Sums over the rows of each code. Rows in the order of their codes are cut into pieces of PIECE: a code whose
 * rows lie in one piece is done there; of any other one each piece leaves a part, which are then added in order. So no
 * code is ever the work of one warp alone, and every sum has one order. ---- */

enum { PIECE = 32, BATCH = 4 };

/* What is added up, in T: x, or with `ERROR` v - x, and then dx -= commit (v - x) as well. */
template <typename T> struct row_sums {
    T *out;   /* [M, D] += scale sum */
    T *parts; /* [pieces, 2, D]: of the code that starts before the piece, or with it, and of the one that goes on */
    double *counts; /* [M], NULL: not wanted */
    real *dx;
    const real *x, *table;
    const int32_t *codes;
    const int64_t *order, *begin;
    real commit;
    T scale;
    int64_t N, M, D;
};

template <typename T, bool ERROR, int WIDTH>
__device__ static pack<T, WIDTH> sum_run(const row_sums<T> &a, int64_t first, int64_t end, int64_t code, int64_t i) {
    pack<T, WIDTH> sum = {};
    pack<real, WIDTH> v = {};
    if (ERROR) v = row_at<WIDTH>(a.table, code, a.D)[i];
    for (int64_t place = first; place < end; place += BATCH) { /* all loads of a batch before its first store */
        pack<real, WIDTH> row[BATCH], dx[BATCH];
        int64_t n[BATCH];
        for (int b = 0; b < BATCH; ++b) {
            n[b] = place + b < end ? a.order[place + b] : -1;
            if (n[b] < 0) continue;
            row[b] = row_at<WIDTH>(a.x, n[b], a.D)[i];
            if (ERROR) dx[b] = row_at<WIDTH>(a.dx, n[b], a.D)[i];
        }
        for (int b = 0; b < BATCH; ++b) {
            if (n[b] < 0) continue;
            for (int c = 0; c < WIDTH; ++c) {
                real value = ERROR ? v.at[c] - row[b].at[c] : row[b].at[c];
                sum.at[c] += value;
                if (ERROR) dx[b].at[c] -= a.commit * value;
            }
            if (ERROR) row_at<WIDTH>(a.dx, n[b], a.D)[i] = dx[b];
        }
    }
    return sum;
}

template <typename T, int WIDTH>
__device__ static void add_to(const row_sums<T> &a, int64_t code, int64_t i, const pack<T, WIDTH> &sum) {
    pack<T, WIDTH> *at = row_at<WIDTH>(a.out, code, a.D) + i, value = *at;
    for (int c = 0; c < WIDTH; ++c) value.at[c] += a.scale * sum.at[c];
    *at = value;
}

/* A warp per piece and WARP packs of its columns. */
template <typename T, bool ERROR, int WIDTH> __global__ static void sum_pieces(row_sums<T> a) {
    int64_t columns = a.D / WIDTH, strips = (columns + WARP - 1) / WARP, pieces = (a.N + PIECE - 1) / PIECE;
    for (int64_t warp = warp_here(); warp < pieces * strips; warp += warps_here()) {
        int64_t piece = warp / strips, i = warp % strips * WARP + lane_here();
        int64_t first = piece * PIECE, end = first + PIECE < a.N ? first + PIECE : a.N;
        for (int64_t from = first, to; from < end && i < columns; from = to) {
            int64_t code = a.codes[a.order[from]];
            to = a.begin[code + 1] < end ? a.begin[code + 1] : end;
            pack<T, WIDTH> sum = sum_run<T, ERROR, WIDTH>(a, from, to, code, i);
            if (a.begin[code] == from && a.begin[code + 1] == to)
                add_to(a, code, i, sum);
            else
                row_at<WIDTH>(a.parts, 2 * piece + (from > first), a.D)[i] = sum;
        }
    }
}

/* A warp per code and WARP packs of its columns. */
template <typename T, int WIDTH> __global__ static void join_pieces(row_sums<T> a) {
    int64_t columns = a.D / WIDTH, strips = (columns + WARP - 1) / WARP;
    for (int64_t warp = warp_here(); warp < a.M * strips; warp += warps_here()) {
        int64_t code = warp / strips, strip = warp % strips, i = strip * WARP + lane_here();
        int64_t from = a.begin[code], to = a.begin[code + 1], piece = from / PIECE, last = (to - 1) / PIECE;
        if (a.counts && strip == 0 && lane_here() == 0) a.counts[code] += (double)(to - from);
        if (from == to || piece == last || i >= columns) continue;
        pack<T, WIDTH> sum = row_at<WIDTH>(a.parts, 2 * piece + (from % PIECE > 0), a.D)[i];
#pragma unroll 4
        for (++piece; piece <= last; ++piece) {
            pack<T, WIDTH> part = row_at<WIDTH>(a.parts, 2 * piece, a.D)[i];
            for (int c = 0; c < WIDTH; ++c) sum.at[c] += part.at[c];
        }
        add_to(a, code, i, sum);
    }
}

template <typename T, bool ERROR, int WIDTH> static void launch_sums(const row_sums<T> &a) {
    int64_t strips = (a.D / WIDTH + WARP - 1) / WARP, pieces = (a.N + PIECE - 1) / PIECE;
    LAUNCH((sum_pieces<T, ERROR, WIDTH>), warp_blocks(pieces * strips), ROW_THREADS, a);
    LAUNCH((join_pieces<T, WIDTH>), warp_blocks(a.M * strips), ROW_THREADS, a);
}

/* Takes order, begin and parts from memory of sums_bytes, and starts. */
template <typename T, bool ERROR> static void sum_by_code(row_sums<T> a, char *memory, bool wide) {
    int64_t pieces = (a.N + PIECE - 1) / PIECE;
    a.parts = (T *)memory;
    int64_t *order = (int64_t *)(a.parts + 2 * pieces * a.D), *begin = order + a.N;
    a.order = order, a.begin = begin;
    cuda_sort(order, NULL, NULL, begin, a.codes, begin + a.M + 1, a.N, a.M);
    if (wide)
        launch_sums<T, ERROR, WIDE>(a);
    else
        launch_sums<T, ERROR, 1>(a);
}

template <typename T> static size_t sums_bytes(int64_t N, int64_t M, int64_t D) {
    int64_t pieces = (N + PIECE - 1) / PIECE;
    return (size_t)(2 * pieces * D) * sizeof(T) + (size_t)(N + M + 1) * sizeof(int64_t) + cuda_sort_bytes(N);
}

template <int WIDTH>
__global__ static void error_back_each(real *dx, const real *x, const real *table, const int32_t *codes, real commit,
                                       int64_t N, int64_t D) {
    for (int64_t n = warp_here(); n < N; n += warps_here()) {
        auto *row = row_at<WIDTH>(x, n, D), *code = row_at<WIDTH>(table, codes[n], D);
        for (int64_t i = lane_here(); i < D / WIDTH; i += WARP) {
            pack<real, WIDTH> a = row[i], v = code[i], sum = row_at<WIDTH>(dx, n, D)[i];
            for (int c = 0; c < WIDTH; ++c) sum.at[c] -= commit * (v.at[c] - a.at[c]);
            row_at<WIDTH>(dx, n, D)[i] = sum;
        }
    }
}

static void code_error_backward(real *dx, real *dtable, const real *x, const real *table, const int32_t *codes,
                                double commit, double code_scale, struct arena *scratch, int64_t N, int64_t M,
                                int64_t D) {
    if (!N) return;
    bool wide = is_wide(D, dx, dtable, x, table);
    if (dtable) {
        struct arena_mark mark = arena_mark(scratch);
        row_sums<real> sums = {dtable,           NULL, NULL, dx, x, table, codes, NULL, NULL, (real)commit,
                               (real)code_scale, N,    M,    D};
        sum_by_code<real, true>(sums, (char *)arena_take(scratch, sums_bytes<real>(N, M, D)), wide);
        arena_release(scratch, mark);
    } else if (wide) {
        LAUNCH((error_back_each<WIDE>), warp_blocks(N), ROW_THREADS, dx, x, table, codes, (real)commit, N, D);
    } else {
        LAUNCH((error_back_each<1>), warp_blocks(N), ROW_THREADS, dx, x, table, codes, (real)commit, N, D);
    }
}

__global__ static void add_each(double *out, const double *in, int64_t n) {
    for (int64_t i = thread_here(); i < n; i += threads_here()) out[i] += in[i];
}

static void add_counts(double *counts, const int32_t *codes, int64_t N, int64_t M) {
    double *fresh = (double *)cuda_workspace(WORKSPACE_GEMM_C, (size_t)M * sizeof *fresh);
    ops->histogram(fresh, codes, N, M);
    LAUNCH(add_each, blocks_for(M, ROW_THREADS), ROW_THREADS, counts, fresh, M);
}

static void code_sums(double *counts, double *sums, const real *x, const int32_t *codes, int64_t N, int64_t M,
                      int64_t D) {
    if (!N) return;
    if (!sums) {
        add_counts(counts, codes, N, M);
        return;
    }
    row_sums<double> a = {sums, NULL, counts, NULL, x, NULL, codes, NULL, NULL, 0, 1, N, M, D};
    char *memory = (char *)cuda_workspace(WORKSPACE_PARTIAL, sums_bytes<double>(N, M, D));
    sum_by_code<double, false>(a, memory, is_wide(D, sums, x));
}

/* ---- Anchors ---- */

enum { QUAD = 4, ANCHOR_ROWS = 1024, ANCHOR_SLICES = 64 };

/* The better of two, of equal values the lower row; row -1: none. */
__device__ static void take_better(double *value, int64_t *row, double other, int64_t its) {
    if (its < 0 || !(*row < 0 || other > *value || (other == *value && its < *row))) return;
    *value = other;
    *row = its;
}

/* A warp per four codes, which share a draw, and slice of rows: values and rows [slices, M], of the best in each. */
__global__ static void anchor_slices(double *values, int64_t *rows, const real *scores, const double *squares,
                                     struct rng_place place, int64_t first, int64_t slice, int64_t slices, int64_t N,
                                     int64_t M) {
    int64_t quads = (M + QUAD - 1) / QUAD;
    for (int64_t warp = warp_here(); warp < quads * slices; warp += warps_here()) {
        int64_t quad = warp % quads, from = warp / quads * slice, to = from + slice < N ? from + slice : N;
        double value[QUAD] = {};
        int64_t row[QUAD] = {-1, -1, -1, -1};
        for (int64_t n = from + lane_here(); n < to; n += WARP) {
            uint32_t words[QUAD];
            rng_words(words, place, (uint32_t)(first + n), (uint32_t)quad);
            for (int c = 0; c < QUAD; ++c) {
                int64_t m = quad * QUAD + c;
                double gumbel = -log(-log(rng_uniform(words[c])));
                if (m < M) take_better(&value[c], &row[c], (squares[m] - scores[n * M + m]) / 2 + gumbel, n);
            }
        }
        for (int c = 0; c < QUAD; ++c) {
            for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
                double other = __shfl_down_sync(ALL_LANES, value[c], (unsigned)lanes);
                long long its = __shfl_down_sync(ALL_LANES, (long long)row[c], (unsigned)lanes);
                take_better(&value[c], &row[c], other, its);
            }
            int64_t at = warp / quads * M + quad * QUAD + c;
            if (lane_here() == 0 && quad * QUAD + c < M) values[at] = value[c], rows[at] = row[c];
        }
    }
}

/* A warp per code. */
__global__ static void anchor_join(double *best, int64_t *token, double *anchor, const double *values,
                                   const int64_t *rows, const real *x, int64_t first, int64_t slices, int64_t M,
                                   int64_t D) {
    for (int64_t m = warp_here(); m < M; m += warps_here()) {
        double value = best[m];
        int64_t row = -1;
        for (int64_t s = 0; s < slices; ++s)
            if (values[s * M + m] > value) value = values[s * M + m], row = rows[s * M + m];
        __syncwarp(); /* all have read best */
        if (row >= 0 && lane_here() == 0) best[m] = value, token[m] = first + row;
        for (int64_t i = lane_here(); i < D && row >= 0; i += WARP) anchor[m * D + i] = x[row * D + i];
    }
}

static void anchor_search(double *best, int64_t *token, double *anchor, const real *scores, const real *v,
                          const real *x, struct rng_place place, int64_t first, int64_t N, int64_t M, int64_t D) {
    if (!N) return;
    int64_t slice = N / ANCHOR_SLICES < ANCHOR_ROWS ? (int64_t)ANCHOR_ROWS : (N + ANCHOR_SLICES - 1) / ANCHOR_SLICES;
    int64_t slices = (N + slice - 1) / slice, quads = (M + QUAD - 1) / QUAD;
    double *squares = (double *)cuda_workspace(WORKSPACE_PARTIAL, (size_t)(M + 2 * slices * M) * sizeof *squares);
    double *values = squares + M;
    int64_t *rows = (int64_t *)(values + slices * M);
    LAUNCH((square_rows<double>), warp_blocks(M), ROW_THREADS, squares, v, M, D);
    LAUNCH(anchor_slices, warp_blocks(quads * slices), ROW_THREADS, values, rows, scores, squares, place, first, slice,
           slices, N, M);
    LAUNCH(anchor_join, warp_blocks(M), ROW_THREADS, best, token, anchor, values, rows, x, first, slices, M, D);
}

void cuda_quantize_ops(struct ops *table) {
    table->nearest_code = nearest_code;
    table->quantize = quantize;
    table->code_error = code_error;
    table->code_error_backward = code_error_backward;
    table->code_sums = code_sums;
    table->anchor_search = anchor_search;
}
