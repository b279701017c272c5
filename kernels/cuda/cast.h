/* Factors of matrix products in the type that the precision multiplies, and what products need around them. */
#ifndef VQMOE_CAST_H
#define VQMOE_CAST_H

#include "kernels/cuda/cuda.h"

/* Matrices as cuBLAS reads them: rows are ld elements apart, matrices stride elements (0: all the same one). */
struct factor {
    const void *at;
    cudaDataType type;
    int64_t ld, stride;
};

static inline struct factor factor_of(const float *at, int64_t ld, int64_t stride) {
    struct factor factor = {at, CUDA_R_32F, ld, stride};
    return factor;
}

static inline struct factor factor_of(const __nv_bfloat16 *at, int64_t ld, int64_t stride) {
    struct factor factor = {at, CUDA_R_16BF, ld, stride};
    return factor;
}

/* The matrices from row `row` on. */
static inline struct factor factor_row(struct factor factor, int64_t row) {
    int64_t size = factor.type == CUDA_R_16BF ? 2 : 4;
    factor.at = (const char *)factor.at + row * factor.ld * size;
    return factor;
}

/* Rows of factors that kernels write are so many elements apart: a multiple of 16 bytes is what tensor cores read
 * fastest. Nothing reads what lies between. */
static inline int64_t padded(int64_t cols) { return (cols + 7) / 8 * 8; }

/* in [count, rows, cols], matrices `stride` apart: itself where exact or in fp32, else rounded to bf16 into the slot's
 * memory. */
struct factor cast_factor(enum workspace_slot slot, bool exact, const float *in, int64_t ld, int64_t stride,
                          int64_t count, int64_t rows, int64_t cols);

/* ops.gemm and ops.gemm_batched over factors of one type. */
void multiply_factors(bool transpose_a, bool transpose_b, int64_t N, int64_t O, int64_t I, double alpha,
                      struct factor a, struct factor b, double beta, float *c, int64_t ldc, int64_t stride_c,
                      int64_t count);

/* The second stage of a sum over rows: out [i] += sum over its parts of partial [count, parts, ld], i < count, in an
 * order that depends on `parts` alone; O columns. */
void add_partials(float *out, const float *partial, int64_t ld, int64_t count, int64_t parts, int64_t O);

/* 16-byte access to rows of `cols` floats from `at` on. */
static inline bool rows_of_quads(const void *at, int64_t cols) { return (uintptr_t)at % 16 == 0 && cols % 4 == 0; }

template <int WIDTH> __device__ static inline void load(float x[WIDTH], const float *at) {
    if constexpr (WIDTH == 4) {
        float4 quad = *reinterpret_cast<const float4 *>(at);
        x[0] = quad.x, x[1] = quad.y, x[2] = quad.z, x[3] = quad.w;
    } else {
        x[0] = *at;
    }
}

template <int WIDTH> __device__ static inline void store(float *at, const float x[WIDTH]) {
    if constexpr (WIDTH == 4)
        *reinterpret_cast<float4 *>(at) = make_float4(x[0], x[1], x[2], x[3]);
    else
        *at = x[0];
}

template <int WIDTH> __device__ static inline void store(__nv_bfloat16 *at, const float x[WIDTH]) {
    if constexpr (WIDTH == 4) {
        __nv_bfloat162 low = __floats2bfloat162_rn(x[0], x[1]);
        __nv_bfloat162 high = __floats2bfloat162_rn(x[2], x[3]);
        uint2 words;
        memcpy(&words.x, &low, sizeof low);
        memcpy(&words.y, &high, sizeof high);
        *reinterpret_cast<uint2 *>(at) = words;
    } else {
        *at = __float2bfloat16_rn(x[0]);
    }
}

#endif
