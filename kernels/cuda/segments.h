/* Sums of rows that lie in runs of one key, each run into a row of its own. A warp takes SEGMENT rows of one block of
 * columns, whatever the runs are, so that long runs are no slower than short ones. A run within a segment is added
 * where it belongs; of one that crosses segments each leaves its part, `tail` where the run begins and `head` from then
 * on, and a second kernel adds the parts in order. Every row is read once, and the order of the sum depends on the keys
 * alone.
 *
 * A source has N and D and says what the rows are:
 *     int32_t key(j)                    not falling, 0 at least
 *     int64_t end(j)                    one past the run of position j
 *     float *out(key)                   [D], added to
 *     loaded<W> fetch<W>(j, column)     what it reads, before any of the segment's next rows is written
 *     floats<W> value<W>(j, column, loaded<W>) */
#ifndef VQMOE_CUDA_SEGMENTS_H
#define VQMOE_CUDA_SEGMENTS_H

#include "kernels/cuda/rows.h"

static const int SEGMENT = WARP, SEGMENT_AT_ONCE = 4;

static inline ON_BOTH int64_t segment_count(int64_t N) { return (N + SEGMENT - 1) / SEGMENT; }
static inline ON_BOTH int64_t column_blocks(int64_t D, int W) { return (D + WARP * W - 1) / (WARP * W); }

template <int W> __device__ static inline void add_to(float *at, floats<W> value) {
    floats<W> sum = load<W>(at);
    for (int k = 0; k < W; ++k) sum.x[k] += value.x[k];
    store<W>(at, sum);
}

template <int W, class Source>
static __global__ void segment_sums(Source source, float *__restrict__ head, float *__restrict__ tail) {
    int64_t N = source.N, D = source.D, across = column_blocks(D, W), items = segment_count(N) * across;
    int lane = lane_index();
    for (int64_t item = warp_index(); item < items; item += warp_count()) {
        int64_t segment = item / across, column = (item % across * WARP + lane) * W, begin = segment * SEGMENT;
        int rows = (int)(N - begin < SEGMENT ? N - begin : SEGMENT);
        bool mine = column < D;
        int32_t own = source.key(begin + (lane < rows ? lane : rows - 1)), key = __shfl_sync(ALL_LANES, own, 0);
        bool goes_on = begin + rows < N && source.key(begin + rows) == __shfl_sync(ALL_LANES, own, rows - 1);
        bool here = begin == 0 || source.key(begin - 1) != key; /* where it belongs, rather than a part */
        float *to = here ? source.out(key) : head + segment * D;
        floats<W> sum = {};
        for (int first = 0; first < rows; first += SEGMENT_AT_ONCE) {
            typename Source::template loaded<W> in[SEGMENT_AT_ONCE];
            for (int u = 0; u < SEGMENT_AT_ONCE; ++u)
                if (mine && first + u < rows) in[u] = source.template fetch<W>(begin + first + u, column);
            for (int u = 0; u < SEGMENT_AT_ONCE; ++u) {
                int at = first + u < rows ? first + u : rows - 1;
                int32_t next = __shfl_sync(ALL_LANES, own, at);
                if (next != key) {
                    if (mine && here) add_to<W>(to + column, sum);
                    if (mine && !here) store<W>(to + column, sum);
                    sum = {};
                    key = next, to = source.out(key), here = true;
                }
                if (mine && first + u < rows) {
                    floats<W> value = source.template value<W>(begin + first + u, column, in[u]);
                    for (int k = 0; k < W; ++k) sum.x[k] += value.x[k];
                }
            }
        }
        if (here && goes_on) to = tail + segment * D, here = false;
        if (mine && here) add_to<W>(to + column, sum);
        if (mine && !here) store<W>(to + column, sum);
    }
}

/* A block for each segment and block of columns; only where a run begins that goes on is there anything to do. */
template <int W, class Source>
static __global__ void segment_join(Source source, const float *__restrict__ head, const float *__restrict__ tail) {
    SHARED(float, part, [WARPS][WARP * W]);
    int64_t N = source.N, D = source.D, across = column_blocks(D, W), items = (segment_count(N) - 1) * across;
    int lane = lane_index(), warp = (int)threadIdx.x / WARP;
    for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
        int64_t segment = item / across, column = (item % across * WARP + lane) * W, next = (segment + 1) * SEGMENT;
        int32_t key = source.key(next - 1);
        bool mine = column < D;
        if (source.key(next) == key && (segment == 0 || source.key(segment * SEGMENT - 1) != key)) {
            int64_t end = segment_count(source.end(next));
            floats<W> sum = {};
            for (int64_t s = segment + 1 + warp; mine && s < end; s += WARPS) {
                floats<W> more = load<W>(head + s * D + column);
                for (int k = 0; k < W; ++k) sum.x[k] += more.x[k];
            }
            for (int k = 0; k < W; ++k) part[warp][k * WARP + lane] = sum.x[k];
            __syncthreads();
            if (warp == 0 && mine) {
                sum = load<W>(tail + segment * D + column);
                for (int other = 0; other < WARPS; ++other)
                    for (int k = 0; k < W; ++k) sum.x[k] += part[other][k * WARP + lane];
                add_to<W>(source.out(key) + column, sum);
            }
            __syncthreads();
        }
    }
}

template <int W, class Source> static inline void segment_launch(Source source, float *head, float *tail) {
    int64_t segments = segment_count(source.N), across = column_blocks(source.D, W);
    LAUNCH((segment_sums<W, Source>), blocks_for(segments * across * WARP, THREADS), THREADS, source, head, tail);
    if (segments > 1)
        LAUNCH((segment_join<W, Source>), blocks_for((segments - 1) * across, 1), THREADS, source, (const float *)head,
               (const float *)tail);
}

/* The source's pointers must allow four at once where fours. */
template <class Source> static inline void segments_add(Source source, bool fours, struct arena *scratch) {
    if (source.N <= 0 || source.D <= 0) return;
    struct arena_mark mark = arena_mark(scratch);
    float *head = ARENA_ARRAY(scratch, float, segment_count(source.N) * source.D);
    float *tail = ARENA_ARRAY(scratch, float, segment_count(source.N) * source.D);
    if (fours)
        segment_launch<4>(source, head, tail);
    else
        segment_launch<1>(source, head, tail);
    arena_release(scratch, mark);
}

#endif
