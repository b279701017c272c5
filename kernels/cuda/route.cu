/* What routing counts, and rows in and out of expert order. */
#include "base/hash.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/sort.h"

/* ---- Radix sort: 8 bits a pass, the lowest first; a block ranks a tile, a warp a contiguous part of it ---- */

enum { DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS, SORT_WARPS = DIGITS / WARP, ROUNDS = 4, TILE = DIGITS * ROUNDS };

/* Lanes whose digit is this lane's, of the valid ones. */
__device__ static unsigned same_digit(unsigned digit, bool valid) {
    unsigned lanes = __ballot_sync(ALL_LANES, valid);
    for (int bit = 0; bit < DIGIT_BITS; ++bit) {
        bool one = digit >> bit & 1;
        unsigned ones = __ballot_sync(ALL_LANES, one);
        lanes &= one ? ones : ~ones;
    }
    return lanes;
}

/* key and rank of this thread's slots: how many of the warp's slots before it have the same digit. counter [SORT_WARPS]
 * [DIGITS]: how many there are in each warp. Negative keys count as E. */
__device__ static void rank_tile(unsigned *key, unsigned *rank, unsigned (*counter)[DIGITS], const int32_t *keys,
                                 int shift, unsigned E, int64_t N) {
    int lane = lane_here(), warp = (int)(threadIdx.x / WARP);
    int64_t first = (int64_t)blockIdx.x * TILE + warp * ROUNDS * WARP + lane;
    for (int digit = lane; digit < DIGITS; digit += WARP) counter[warp][digit] = 0;
    __syncwarp();
    for (int round = 0; round < ROUNDS; ++round) {
        int64_t i = first + round * WARP;
        bool valid = i < N;
        int32_t given = valid ? keys[i] : 0;
        key[round] = given < 0 ? E : (unsigned)given;
        unsigned digit = key[round] >> shift & (DIGITS - 1), lanes = same_digit(digit, valid);
        unsigned before = lanes & ((1u << lane) - 1);
        rank[round] = counter[warp][digit] + (unsigned)__popc(before);
        __syncwarp();
        if (valid && !before) counter[warp][digit] += (unsigned)__popc(lanes);
        __syncwarp();
    }
}

/* counts [tiles, DIGITS] */
__global__ static void count_digits(unsigned *counts, const int32_t *keys, int shift, unsigned E, int64_t N) {
    SHARED(unsigned, counter, [SORT_WARPS][DIGITS]);
    unsigned key[ROUNDS], rank[ROUNDS], sum = 0;
    rank_tile(key, rank, counter, keys, shift, E, N);
    __syncthreads();
    for (int warp = 0; warp < SORT_WARPS; ++warp) sum += counter[warp][threadIdx.x];
    counts[(int64_t)blockIdx.x * DIGITS + threadIdx.x] = sum;
}

/* Sum over the lanes up to this one. */
__device__ static unsigned warp_prefix(unsigned x) {
    for (int lanes = 1; lanes < WARP; lanes *= 2) {
        unsigned other = __shfl_up_sync(ALL_LANES, x, (unsigned)lanes);
        if (lane_here() >= lanes) x += other;
    }
    return x;
}

/* One block, a thread per digit: counts become how many there are in the tiles before; starts [DIGITS]: how many slots
 * have a lower digit. */
__global__ static void sum_tiles(unsigned *counts, unsigned *starts, int64_t tiles) {
    SHARED(unsigned, warps, [SORT_WARPS]);
    unsigned total = 0, digit = threadIdx.x;
#pragma unroll 8
    for (int64_t tile = 0; tile < tiles; ++tile) {
        unsigned count = counts[tile * DIGITS + digit];
        counts[tile * DIGITS + digit] = total;
        total += count;
    }
    unsigned upto = warp_prefix(total);
    if (lane_here() == WARP - 1) warps[digit / WARP] = upto;
    __syncthreads();
    for (unsigned before = 0; before < digit / WARP; ++before) upto += warps[before];
    starts[digit] = upto - total;
}

/* The slots in the order of this digit. slots NULL: slot i is i. The last pass has order instead of next_slots. */
__global__ static void place_slots(int32_t *next_keys, int32_t *next_slots, int64_t *order, int64_t *place,
                                   const int32_t *keys, const int32_t *slots, const unsigned *counts,
                                   const unsigned *starts, int shift, unsigned E, int64_t N) {
    SHARED(unsigned, counter, [SORT_WARPS][DIGITS]);
    unsigned key[ROUNDS], rank[ROUNDS];
    rank_tile(key, rank, counter, keys, shift, E, N);
    unsigned start = starts[threadIdx.x] + counts[(int64_t)blockIdx.x * DIGITS + threadIdx.x];
    __syncthreads();
    for (int warp = 0; warp < SORT_WARPS; ++warp) {
        unsigned count = counter[warp][threadIdx.x];
        counter[warp][threadIdx.x] = start;
        start += count;
    }
    __syncthreads();
    int warp = (int)(threadIdx.x / WARP);
    for (int round = 0; round < ROUNDS; ++round) {
        int64_t i = (int64_t)blockIdx.x * TILE + (warp * ROUNDS + round) * WARP + lane_here();
        if (i >= N) break;
        unsigned to = counter[warp][key[round] >> shift & (DIGITS - 1)] + rank[round];
        int32_t slot = slots ? slots[i] : (int32_t)i;
        next_keys[to] = (int32_t)key[round];
        if (next_slots) next_slots[to] = slot;
        if (order && key[round] < E) order[to] = slot;
        if (place) place[slot] = key[round] < E ? (int64_t)to : -1;
    }
}

__device__ static int64_t first_not_below(const int32_t *keys, int64_t key, int64_t N) {
    int64_t low = 0, high = N;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* keys [N] sorted; begin [E + 1] and counts [E], NULL where not wanted */
__global__ static void find_begins(int64_t *begin, int64_t *counts, const int32_t *keys, int64_t N, int64_t E) {
    for (int64_t e = thread_here(); e <= E; e += threads_here()) {
        int64_t first = first_not_below(keys, e, N);
        if (begin) begin[e] = first;
        if (counts && e < E) counts[e] = first_not_below(keys, e + 1, N) - first;
    }
}

static int64_t tiles_of(int64_t N) { return (N + TILE - 1) / TILE; }

size_t cuda_sort_bytes(int64_t N) { return (size_t)(DIGITS * (tiles_of(N) + 1) + 4 * N) * sizeof(int32_t); }

void cuda_sort(int64_t *order, int64_t *place, int64_t *counts, int64_t *begin, const int32_t *keys, void *scratch,
               int64_t N, int64_t E) {
    CHECK(N <= INT32_MAX && E < INT32_MAX);
    int64_t tiles = tiles_of(N);
    unsigned *tile_counts = (unsigned *)scratch, *starts = tile_counts + DIGITS * tiles;
    int32_t *next = (int32_t *)(starts + DIGITS), *slots = NULL;
    for (int shift = 0; N && (shift == 0 || E >> shift); shift += DIGIT_BITS) {
        bool last = !(E >> shift >> DIGIT_BITS);
        int32_t *next_slots = last ? NULL : next + N;
        LAUNCH(count_digits, (unsigned)tiles, DIGITS, tile_counts, keys, shift, (unsigned)E, N);
        LAUNCH(sum_tiles, 1, DIGITS, tile_counts, starts, tiles);
        LAUNCH(place_slots, (unsigned)tiles, DIGITS, next, next_slots, last ? order : NULL, last ? place : NULL, keys,
               slots, tile_counts, starts, shift, (unsigned)E, N);
        keys = next, slots = next_slots;
        next = (int32_t *)(starts + DIGITS) + (shift / DIGIT_BITS % 2 ? 0 : 2 * N);
    }
    LAUNCH(find_begins, blocks_for(E + 1, ROW_THREADS), ROW_THREADS, begin, counts, keys, N, E);
}

static void sort_by_expert(int64_t *order, int64_t *place, int64_t *counts, const int32_t *experts,
                           struct arena *scratch, int64_t N, int64_t E) {
    struct arena_mark mark = arena_mark(scratch);
    cuda_sort(order, place, counts, NULL, experts, arena_take(scratch, cuda_sort_bytes(N)), N, E);
    arena_release(scratch, mark);
}

/* ---- Rows ---- */

template <int WIDTH>
__global__ static void scatter_each(real *out, const real *in, const int64_t *place, int64_t K, int64_t N, int64_t D) {
    for (int64_t i = warp_here(); i < N; i += warps_here()) {
        int64_t at = place[i];
        auto *to = row_at<WIDTH>(out, at < 0 ? 0 : at, D);
        auto *from = row_at<WIDTH>(in, i / K, D);
        for (int64_t j = lane_here(); j < D / WIDTH && at >= 0; j += WARP) to[j] = from[j];
    }
}

static void scatter_rows(real *out, const real *in, const int64_t *place, int64_t K, int64_t N, int64_t D) {
    if (!N) return;
    if (is_wide(D, out, in))
        LAUNCH((scatter_each<WIDE>), warp_blocks(N), ROW_THREADS, out, in, place, K, N, D);
    else
        LAUNCH((scatter_each<1>), warp_blocks(N), ROW_THREADS, out, in, place, K, N, D);
}

template <int WIDTH>
__global__ static void gather_each(real *out, const real *in, const int64_t *index, int64_t divisor, int64_t N,
                                   int64_t D) {
    for (int64_t n = warp_here(); n < N; n += warps_here()) {
        auto *to = row_at<WIDTH>(out, n, D);
        auto *from = row_at<WIDTH>(in, index[n] / divisor, D);
        for (int64_t i = lane_here(); i < D / WIDTH; i += WARP) to[i] = from[i];
    }
}

static void gather_rows(real *out, const real *in, const int64_t *index, int64_t divisor, int64_t N, int64_t D) {
    if (!N) return;
    if (is_wide(D, out, in))
        LAUNCH((gather_each<WIDE>), warp_blocks(N), ROW_THREADS, out, in, index, divisor, N, D);
    else
        LAUNCH((gather_each<1>), warp_blocks(N), ROW_THREADS, out, in, index, divisor, N, D);
}

template <int WIDTH>
__global__ static void combine_each(real *out, bool add, const real *rows, const int64_t *place, const real *weights,
                                    int64_t N, int64_t K, int64_t D) {
    for (int64_t n = warp_here(); n < N; n += warps_here()) {
        auto *to = row_at<WIDTH>(out, n, D);
        for (int64_t i = lane_here(); i < D / WIDTH; i += WARP) {
            pack<real, WIDTH> sum = {};
            if (add) sum = to[i];
            for (int64_t j = n * K; j < (n + 1) * K; ++j) {
                if (place[j] < 0) continue;
                pack<real, WIDTH> row = row_at<WIDTH>(rows, place[j], D)[i];
                real weight = weights ? weights[j] : 1;
                for (int c = 0; c < WIDTH; ++c) sum.at[c] += weight * row.at[c];
            }
            to[i] = sum;
        }
    }
}

static void combine_forward(real *out, bool add, const real *rows, const int64_t *place, const real *weights, int64_t N,
                            int64_t K, int64_t D) {
    if (!N) return;
    if (is_wide(D, out, rows))
        LAUNCH((combine_each<WIDE>), warp_blocks(N), ROW_THREADS, out, add, rows, place, weights, N, K, D);
    else
        LAUNCH((combine_each<1>), warp_blocks(N), ROW_THREADS, out, add, rows, place, weights, N, K, D);
}

template <int WIDTH>
__global__ static void combine_back_each(real *drows, real *dweights, const real *dout, const real *rows,
                                         const int64_t *place, const real *weights, int64_t N, int64_t K, int64_t D) {
    int lane = lane_here();
    for (int64_t n = warp_here(); n < N; n += warps_here()) {
        auto *from = row_at<WIDTH>(dout, n, D);
        for (int64_t j = n * K; j < (n + 1) * K; ++j) {
            real dot = 0;
            for (int64_t i = lane; i < D / WIDTH && place[j] >= 0; i += WARP) {
                pack<real, WIDTH> dy = from[i], row = row_at<WIDTH>(rows, place[j], D)[i], drow;
                for (int c = 0; c < WIDTH; ++c) {
                    dot += dy.at[c] * row.at[c];
                    drow.at[c] = weights[j] * dy.at[c];
                }
                row_at<WIDTH>(drows, place[j], D)[i] = drow;
            }
            dot = warp_sum(dot);
            if (lane == 0) dweights[j] = dot;
        }
    }
}

static void combine_backward(real *drows, real *dweights, const real *dout, const real *rows, const int64_t *place,
                             const real *weights, int64_t N, int64_t K, int64_t D) {
    if (!N) return;
    if (is_wide(D, drows, dout, rows))
        LAUNCH((combine_back_each<WIDE>), warp_blocks(N), ROW_THREADS, drows, dweights, dout, rows, place, weights, N,
               K, D);
    else
        LAUNCH((combine_back_each<1>), warp_blocks(N), ROW_THREADS, drows, dweights, dout, rows, place, weights, N, K,
               D);
}

/* ---- Choices ---- */

__global__ static void drop_each(int32_t *experts, const int64_t *place, const int64_t *shift, int64_t room,
                                 int64_t N) {
    for (int64_t i = thread_here(); i < N; i += threads_here())
        if (experts[i] >= 0 && place[i] + shift[experts[i]] >= room) experts[i] = -1;
}

static void drop_beyond(int32_t *experts, const int64_t *place, const int64_t *shift, int64_t room, int64_t N) {
    if (N) LAUNCH(drop_each, blocks_for(N, ROW_THREADS), ROW_THREADS, experts, place, shift, room, N);
}

__global__ static void hash_each(real *scores, const int32_t *ids, uint64_t salt, int64_t N, int64_t E) {
    for (int64_t n = warp_here(); n < N; n += warps_here()) {
        int64_t chosen = (int64_t)(hash_splitmix64((uint64_t)ids[n] ^ salt) % (uint64_t)E);
        for (int64_t e = lane_here(); e < E; e += WARP) scores[n * E + e] = e == chosen;
    }
}

static void hash_scores(real *scores, const int32_t *ids, uint64_t salt, int64_t N, int64_t E) {
    if (N) LAUNCH(hash_each, warp_blocks(N), ROW_THREADS, scores, ids, salt, N, E);
}

/* Block (x, y) counts the ids of slice y that lie in the x-th BINS numbers; whole numbers have one sum in any order. */
enum { BINS = 4096, SLICE = 16384, SLICES = 64 };

/* parts [slices, M] */
__global__ static void count_slice(int32_t *parts, const int32_t *ids, int64_t slice, int64_t N, int64_t M) {
    SHARED(int, bins, [BINS]);
    int64_t low = (int64_t)blockIdx.x * BINS, first = (int64_t)blockIdx.y * slice;
    int64_t end = first + slice < N ? first + slice : N, width = M - low < BINS ? M - low : (int64_t)BINS;
    for (int64_t m = threadIdx.x; m < width; m += blockDim.x) bins[m] = 0;
    __syncthreads();
    for (int64_t n = first + threadIdx.x; n < end; n += blockDim.x) {
        int64_t m = ids[n] - low;
        if (m >= 0 && m < width) atomicAdd(&bins[m], 1);
    }
    __syncthreads();
    for (int64_t m = threadIdx.x; m < width; m += blockDim.x) parts[blockIdx.y * M + low + m] = bins[m];
}

__global__ static void add_slices(double *counts, const int32_t *parts, int64_t slices, int64_t M) {
    for (int64_t m = thread_here(); m < M; m += threads_here()) {
        int64_t sum = 0;
        for (int64_t s = 0; s < slices; ++s) sum += parts[s * M + m];
        counts[m] = (double)sum;
    }
}

static void histogram(double *counts, const int32_t *ids, int64_t N, int64_t M) {
    if (!M) return;
    int64_t full = N / SLICE, slices = full < 1 ? 1 : full < SLICES ? full : (int64_t)SLICES;
    int64_t slice = (N + slices - 1) / slices;
    int32_t *parts = (int32_t *)cuda_workspace(WORKSPACE_PARTIAL, (size_t)(slices * M) * sizeof *parts);
    LAUNCH(count_slice, dim3((unsigned)((M + BINS - 1) / BINS), (unsigned)slices), ROW_THREADS, parts, ids, slice, N,
           M);
    LAUNCH(add_slices, blocks_for(M, ROW_THREADS), ROW_THREADS, counts, parts, slices, M);
}

void cuda_route_ops(struct ops *table) {
    table->sort_by_expert = sort_by_expert;
    table->scatter_rows = scatter_rows;
    table->gather_rows = gather_rows;
    table->combine_forward = combine_forward;
    table->combine_backward = combine_backward;
    table->drop_beyond = drop_beyond;
    table->hash_scores = hash_scores;
    table->histogram = histogram;
}
