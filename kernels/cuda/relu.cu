/* The experts' hidden units. A warp takes 32 rows of one block of columns; its lanes find the rows' groups at once. */
#include "kernels/cuda/segments.h"

enum { ROWS_AT_ONCE = 4 };

/* dropout's word of a column is its own: where columns come one by one a lane draws for itself alone. */
template <int W> __device__ static inline void factors_of(float factor[W], struct kept kept, uint32_t row, int64_t at) {
    float quad[4];
    kept_factors(quad, kept, row, (uint32_t)(at / 4));
    if (W == 4)
        for (int k = 0; k < W; ++k) factor[k] = quad[k];
    else
        factor[0] = at % 4 == 0 ? quad[0] : at % 4 == 1 ? quad[1] : at % 4 == 2 ? quad[2] : quad[3];
}

/* rows first .. first + N of hidden */
template <int W>
static __global__ void relu_forward(float *hidden, const float *__restrict__ bias, const int64_t *__restrict__ rows,
                                    struct kept kept, const int64_t *__restrict__ begin, int64_t groups, int64_t first,
                                    int64_t N, int64_t D) {
    int64_t across = column_blocks(D, W), items = segment_count(N) * across;
    int lane = lane_index();
    for (int64_t item = warp_index(); item < items; item += warp_count()) {
        int64_t row = first + item / across * SEGMENT, column = (item % across * WARP + lane) * W;
        int count = (int)(first + N - row < SEGMENT ? first + N - row : SEGMENT);
        int64_t own = row + (lane < count ? lane : count - 1);
        int32_t own_group = group_of(begin, groups, own);
        uint32_t own_number = kept.drops ? (uint32_t)rows[own] : 0;
        bool mine = column < D;
        for (int r = 0; r < count; r += ROWS_AT_ONCE) {
            floats<W> x[ROWS_AT_ONCE] = {};
            for (int u = 0; u < ROWS_AT_ONCE; ++u)
                if (mine && r + u < count) x[u] = load<W>(hidden + (row + r + u) * D + column);
            for (int u = 0; u < ROWS_AT_ONCE; ++u) {
                int at = r + u < count ? r + u : count - 1;
                int32_t group = __shfl_sync(ALL_LANES, own_group, at);
                uint32_t number = __shfl_sync(ALL_LANES, own_number, at);
                if (mine && r + u < count) {
                    floats<W> b = load<W>(bias + group * D + column);
                    for (int k = 0; k < W; ++k) {
                        float sum = x[u].x[k] + b.x[k];
                        x[u].x[k] = sum > 0 || sum != sum ? sum : 0; /* a NaN stays one, for the check of the loss */
                    }
                    if (kept.drops) {
                        struct kept of_group = kept;
                        of_group.place.site += (uint32_t)group << 16;
                        float factor[W];
                        factors_of<W>(factor, of_group, number, column);
                        for (int k = 0; k < W; ++k) x[u].x[k] *= factor[k];
                    }
                    store<W>(hidden + (row + r + u) * D + column, x[u]);
                }
            }
        }
    }
}

static void grouped_relu_forward(real *hidden, const real *bias, const int64_t *rows, struct dropout dropout,
                                 const struct groups *groups, int64_t D) {
    int64_t first = groups->begin[0], N = groups->begin[groups->count] - first;
    struct kept kept = kept_of(dropout);
    if (N <= 0) return;
    if (in_fours(D, hidden, bias))
        LAUNCH((relu_forward<4>), blocks_for(segment_count(N) * column_blocks(D, 4) * WARP, THREADS), THREADS, hidden,
               bias, rows, kept, groups->begin_here, groups->count, first, N, D);
    else
        LAUNCH((relu_forward<1>), blocks_for(segment_count(N) * column_blocks(D, 1) * WARP, THREADS), THREADS, hidden,
               bias, rows, kept, groups->begin_here, groups->count, first, N, D);
}

/* The rows of all groups, as a source of segments.h: what becomes of dhidden is what is added up. */
struct relu_rows {
    int64_t N, D, first, groups;
    const int64_t *begin;
    float *dhidden, *dbias, scale;
    const float *hidden;

    template <int W> struct loaded { floats<W> dh, h; };
    __device__ int32_t key(int64_t j) const { return group_of(begin, groups, first + j); }
    __device__ int64_t end(int64_t j) const { return begin[key(j) + 1] - first; }
    __device__ float *out(int32_t key) const { return dbias + key * D; }
    template <int W> __device__ loaded<W> fetch(int64_t j, int64_t column) const {
        int64_t at = (first + j) * D + column;
        return loaded<W>{load<W>(dhidden + at), load<W>(hidden + at)};
    }
    template <int W> __device__ floats<W> value(int64_t j, int64_t column, loaded<W> in) const {
        floats<W> x;
        for (int k = 0; k < W; ++k) x.x[k] = in.h.x[k] > 0 ? scale * in.dh.x[k] : 0;
        store<W>(dhidden + (first + j) * D + column, x);
        return x;
    }
};

static void grouped_relu_backward(real *dhidden, real *dbias, const real *hidden, struct dropout dropout,
                                  struct arena *scratch, const struct groups *groups, int64_t D) {
    int64_t first = groups->begin[0], N = groups->begin[groups->count] - first;
    struct relu_rows source = {
        N, D, first, groups->count, groups->begin_here, dhidden, dbias, (float)(1 / (1 - dropout.p)), hidden};
    segments_add(source, in_fours(D, dhidden, hidden, dbias), scratch);
}

void cuda_relu_ops(struct ops *table) {
    table->grouped_relu_forward = grouped_relu_forward;
    table->grouped_relu_backward = grouped_relu_backward;
}
