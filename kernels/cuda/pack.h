/* Rows of numbers, read and written 16 bytes at a time where their width and places allow it. */
#ifndef VQMOE_PACK_H
#define VQMOE_PACK_H

#include "kernels/cuda/cuda.h"

template <typename T, int WIDTH> struct alignas(WIDTH * sizeof(T) < 16 ? WIDTH * sizeof(T) : 16) pack { T at[WIDTH]; };

enum { WIDE = 16 / sizeof(real), ROW_THREADS = 256 };

/* Whether rows of D reals can be cut into packs of WIDE, in all these arrays (NULL: none). */
static inline bool is_wide(int64_t D, const void *a, const void *b = NULL, const void *c = NULL, const void *d = NULL) {
    return D % WIDE == 0 && ((uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d) % 16 == 0;
}

/* Row n of [N, D], in packs. */
template <int WIDTH, typename T> __device__ static inline pack<T, WIDTH> *row_at(T *rows, int64_t n, int64_t D) {
    return reinterpret_cast<pack<T, WIDTH> *>(rows + n * D);
}
template <int WIDTH, typename T>
__device__ static inline const pack<T, WIDTH> *row_at(const T *rows, int64_t n, int64_t D) {
    return reinterpret_cast<const pack<T, WIDTH> *>(rows + n * D);
}

__device__ static inline int lane_here() { return (int)(threadIdx.x % WARP); }
__device__ static inline int64_t thread_here() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ static inline int64_t threads_here() { return (int64_t)gridDim.x * blockDim.x; }
/* Among the warps of the grid. */
__device__ static inline int64_t warp_here() { return thread_here() / WARP; }
__device__ static inline int64_t warps_here() { return threads_here() / WARP; }

/* Blocks of ROW_THREADS for N warps. */
static inline unsigned warp_blocks(int64_t N) { return blocks_for(N * WARP, ROW_THREADS); }

#endif
