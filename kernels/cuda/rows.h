/* What flat and row-wise kernels share. A warp takes a row and its lanes the columns, W floats at once: 4 where rows
 * allow it, else 1. */
#ifndef VQMOE_CUDA_ROWS_H
#define VQMOE_CUDA_ROWS_H

#include "kernels/cuda/cuda.h"

static const int THREADS = 256, WARPS = THREADS / WARP;

template <int W> struct alignas(sizeof(float) * W) floats { float x[W]; };

template <int W> __device__ static inline floats<W> load(const float *at) {
    return *reinterpret_cast<const floats<W> *>(at);
}

template <int W> __device__ static inline void store(float *at, floats<W> value) {
    *reinterpret_cast<floats<W> *>(at) = value;
}

/* Whether rows of D floats from these places (NULL is fine) can be read four at once. */
template <class... P> static inline bool in_fours(int64_t D, const P *...at) {
    return D % 4 == 0 && (reinterpret_cast<uintptr_t>(at) | ...) % 16 == 0;
}

__device__ static inline int lane_index(void) { return (int)threadIdx.x % WARP; }
__device__ static inline int64_t thread_index(void) { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ static inline int64_t thread_count(void) { return (int64_t)gridDim.x * blockDim.x; }
__device__ static inline int64_t warp_index(void) { return thread_index() / WARP; }
__device__ static inline int64_t warp_count(void) { return thread_count() / WARP; }

/* A kernel template <int W>, one warp for each of N rows. */
#define LAUNCH_ROWS(kernel, fours, N, ...) \
    do { \
        if ((N) <= 0) break; \
        if (fours) \
            LAUNCH((kernel<4>), blocks_for((N)*WARP, THREADS), THREADS, __VA_ARGS__); \
        else \
            LAUNCH((kernel<1>), blocks_for((N)*WARP, THREADS), THREADS, __VA_ARGS__); \
    } while (0)

/* f.at<W>(i) for i = 0, W, .. below n; what is left over one by one. */
template <int W, class F> static __global__ void flat(F f, int64_t n) {
    for (int64_t i = thread_index(); i < n / W; i += thread_count()) f.template at<W>(i * W);
    if (W > 1 && thread_index() < n % W) f.template at<1>(n / W * W + thread_index());
}

template <class F> static inline void each_launch(F f, int64_t n) {
    if (n > 0) LAUNCH((flat<1, F>), blocks_for(n, THREADS), THREADS, f, n);
}

template <class F> static inline void flat_launch(F f, bool fours, int64_t n) {
    if (!fours)
        each_launch(f, n);
    else if (n > 0)
        LAUNCH((flat<4, F>), blocks_for((n + 3) / 4, THREADS), THREADS, f, n);
}

/* first [n] and second [n] from the columns of partial [P, 2 n], or first alone from those of [P, n] where second is
 * NULL: the sums over P in fixed order, added to what is there, or instead of it. */
template <class T, bool ADD>
static __global__ void columns_sum_kernel(T *first, T *second, const T *partial, int64_t P, int64_t n) {
    SHARED(T, part, [WARPS][WARP]);
    int lane = lane_index(), warp = (int)threadIdx.x / WARP;
    int64_t width = second ? 2 * n : n;
    for (int64_t block = blockIdx.x; block * WARP < width; block += gridDim.x) {
        int64_t column = block * WARP + lane;
        T sum = 0;
        if (column < width)
            for (int64_t p = warp; p < P; p += WARPS) sum += partial[p * width + column];
        part[warp][lane] = sum;
        __syncthreads();
        if (warp == 0 && column < width) {
            for (int other = 1; other < WARPS; ++other) sum += part[other][lane];
            T *out = column < n ? first + column : second + column - n;
            *out = ADD ? *out + sum : sum;
        }
        __syncthreads();
    }
}

template <class T, bool ADD>
static inline void columns_sum(T *first, T *second, const T *partial, int64_t P, int64_t n) {
    if (n <= 0) return;
    LAUNCH((columns_sum_kernel<T, ADD>), blocks_for(second ? 2 * n : n, WARP), THREADS, first, second, partial, P, n);
}

/* The last group that begins at or before the row: the one that has it, with empty ones around. */
__device__ static inline int32_t group_of(const int64_t *begin, int64_t count, int64_t row) {
    int64_t low = 0, high = count;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (begin[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    return (int32_t)low;
}

/* A value is kept where its word is not below the threshold. */
struct kept {
    uint32_t threshold;
    float scale;
    bool drops;
    struct rng_place place;
};

static inline struct kept kept_of(struct dropout dropout) {
    struct kept kept = {(uint32_t)(dropout.p * 4294967296.0), (float)(1 / (1 - dropout.p)), dropout.p > 0,
                        dropout.place};
    return kept;
}

/* factor [4]: what columns 4 quad .. 4 quad + 3 of a row are multiplied by. */
__device__ static inline void kept_factors(float factor[4], struct kept kept, uint32_t row, uint32_t quad) {
    uint32_t words[4];
    rng_words(words, kept.place, row, quad);
    for (int k = 0; k < 4; ++k) factor[k] = words[k] >= kept.threshold ? kept.scale : 0;
}

/* More families of operations, each filled by the one whose entries they are. */
void cuda_reduce_ops(struct ops *table);
void cuda_relu_ops(struct ops *table);
void cuda_choice_ops(struct ops *table);

#endif
