#include <math.h>

#include "kernels/cuda/segments.h"
#include "kernels/cuda/sort.h"

template <int W>
static __global__ void embedding_rows(float *__restrict__ out, const float *__restrict__ weight,
                                      const int32_t *__restrict__ ids, float scale, int64_t N, int64_t D) {
    for (int64_t n = warp_index(); n < N; n += warp_count()) {
        const float *row = weight + ids[n] * D;
        for (int64_t i = lane_index() * W; i < D; i += WARP * W) {
            floats<W> x = load<W>(row + i);
            for (int k = 0; k < W; ++k) x.x[k] *= scale;
            store<W>(out + n * D + i, x);
        }
    }
}

static void embedding_forward(real *out, const real *weight, const int32_t *ids, double scale, int64_t N, int64_t D) {
    LAUNCH_ROWS(embedding_rows, in_fours(D, out, weight), N, out, weight, ids, (float)scale, N, D);
}

/* Rows in the order of their ids, as a source of segments.h. */
struct embedded_rows {
    int64_t N, D;
    const int32_t *ids;
    const int64_t *order;
    const float *dout;
    float *dweight, scale;

    template <int W> using loaded = floats<W>;
    __device__ int32_t key(int64_t j) const { return ids[order[j]]; }
    __device__ int64_t end(int64_t j) const {
        int64_t low = j, high = N; /* position low has the key, position high has not */
        while (high - low > 1) {
            int64_t middle = (low + high) / 2;
            if (key(middle) == key(j))
                low = middle;
            else
                high = middle;
        }
        return high;
    }
    __device__ float *out(int32_t key) const { return dweight + key * D; }
    template <int W> __device__ floats<W> fetch(int64_t j, int64_t column) const {
        return load<W>(dout + order[j] * D + column);
    }
    template <int W> __device__ floats<W> value(int64_t, int64_t, floats<W> in) const {
        for (int k = 0; k < W; ++k) in.x[k] *= scale;
        return in;
    }
};

static void embedding_backward(real *dweight, const real *dout, const int32_t *ids, double scale, struct arena *scratch,
                               int64_t N, int64_t V, int64_t D) {
    if (N <= 0) return;
    struct arena_mark mark = arena_mark(scratch);
    int64_t *order = ARENA_ARRAY(scratch, int64_t, N);
    cuda_sort(order, NULL, NULL, NULL, ids, arena_take(scratch, cuda_sort_bytes(N)), N, V);
    struct embedded_rows source = {N, D, ids, order, dout, dweight, (float)scale};
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
