#include "kernels/cuda/cast.h"

enum { THREADS = 256, SLICES = THREADS / WARP };

/* out [count rows, out_ld] from in [count, rows, cols]; out_ld is at least cols rounded up to 4. */
__global__ static void cast(__nv_bfloat16 *out, int64_t out_ld, const float *in, int64_t ld, int64_t stride,
                            int64_t count, int64_t rows, int64_t cols, bool wide) {
    int64_t quads = (cols + 3) / 4, n = count * rows * quads, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        int64_t row = count * rows == 1 ? 0 : i / quads, matrix = count == 1 ? 0 : row / rows;
        int64_t col = 4 * (i - row * quads);
        const float *from = in + matrix * stride + (row - matrix * rows) * ld + col;
        float x[4];
        if (wide && col + 4 <= cols)
            load<4>(x, from);
        else
            for (int e = 0; e < 4; ++e) x[e] = col + e < cols ? from[e] : 0;
        store<4>(out + row * out_ld + col, x);
    }
}

struct factor cast_factor(enum workspace_slot slot, bool exact, const float *in, int64_t ld, int64_t stride,
                          int64_t count, int64_t rows, int64_t cols) {
    if (exact || cuda.precision != PRECISION_BF16 || count == 0 || rows == 0 || cols == 0)
        return factor_of(in, ld, stride);
    int64_t out_ld = padded(cols), matrices = stride ? count : 1;
    void *memory = cuda_workspace(slot, (size_t)(matrices * rows * out_ld) * sizeof(__nv_bfloat16));
    __nv_bfloat16 *out = (__nv_bfloat16 *)memory;
    struct factor factor = factor_of(out, out_ld, stride ? rows * out_ld : 0);
    bool wide = (uintptr_t)in % 16 == 0 && ld % 4 == 0 && stride % 4 == 0;
    if (matrices > 1 && stride == rows * ld) rows *= matrices, matrices = 1;
    if (matrices == 1 && ld == cols && out_ld == cols) cols *= rows, rows = 1; /* one long row needs no division */
    LAUNCH(cast, blocks_for(matrices * rows * ((cols + 3) / 4), THREADS), THREADS, out, out_ld, in, ld, stride,
           matrices, rows, cols, wide);
    return factor;
}

__global__ static void scale_matrices(float *c, int64_t ld, int64_t stride, int64_t count, int64_t N, int64_t O,
                                      float beta) {
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count * N * O; i += step) {
        int64_t row = i / O, matrix = row / N;
        float *at = c + matrix * stride + (row - matrix * N) * ld + (i - row * O);
        *at = beta == 0 ? 0 : beta * *at;
    }
}

/* cuBLAS is column-major: it sees every matrix transposed, and C^T = B^T A^T. */
void multiply_factors(bool transpose_a, bool transpose_b, int64_t N, int64_t O, int64_t I, double alpha,
                      struct factor a, struct factor b, double beta, float *c, int64_t ldc, int64_t stride_c,
                      int64_t count) {
    if (N == 0 || O == 0 || count == 0) return;
    if (I == 0) {
        LAUNCH(scale_matrices, blocks_for(count * N * O, THREADS), THREADS, c, ldc, stride_c, count, N, O, (float)beta);
        return;
    }
    CHECK(N <= INT32_MAX && O <= INT32_MAX && I <= INT32_MAX && count <= INT32_MAX);
    CHECK(a.ld <= INT32_MAX && b.ld <= INT32_MAX && ldc <= INT32_MAX);
    cublasOperation_t operation_a = transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t operation_b = transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    float by = (float)alpha, old = (float)beta;
    if (count == 1)
        CUBLAS(cublasGemmEx(cuda.blas, operation_b, operation_a, (int)O, (int)N, (int)I, &by, b.at, b.type, (int)b.ld,
                            a.at, a.type, (int)a.ld, &old, c, CUDA_R_32F, (int)ldc, CUBLAS_COMPUTE_32F,
                            CUBLAS_GEMM_DEFAULT));
    else
        CUBLAS(cublasGemmStridedBatchedEx(cuda.blas, operation_b, operation_a, (int)O, (int)N, (int)I, &by, b.at,
                                          b.type, (int)b.ld, b.stride, a.at, a.type, (int)a.ld, a.stride, &old, c,
                                          CUDA_R_32F, (int)ldc, stride_c, (int)count, CUBLAS_COMPUTE_32F,
                                          CUBLAS_GEMM_DEFAULT));
}

/* A block takes 32 columns of one group, each of its warps every SLICES-th part. */
__global__ static void sum_partials(float *out, const float *partial, int64_t ld, int64_t count, int64_t parts,
                                    int64_t O) {
    SHARED(float, slices, [SLICES][WARP]);
    int lane = threadIdx.x % WARP, slice = threadIdx.x / WARP;
    int64_t tiles = (O + WARP - 1) / WARP;
    for (int64_t unit = blockIdx.x; unit < count * tiles; unit += gridDim.x) {
        int64_t group = unit / tiles, o = (unit - group * tiles) * WARP + lane;
        float sum = 0;
        if (o < O)
            for (int64_t part = slice; part < parts; part += SLICES) sum += partial[(group * parts + part) * ld + o];
        slices[slice][lane] = sum;
        __syncthreads();
        if (slice == 0 && o < O) {
            sum = 0;
            for (int i = 0; i < SLICES; ++i) sum += slices[i][lane];
            out[group * O + o] += sum;
        }
        __syncthreads();
    }
}

void add_partials(float *out, const float *partial, int64_t ld, int64_t count, int64_t parts, int64_t O) {
    int64_t tiles = (O + WARP - 1) / WARP;
    if (count * tiles > 0)
        LAUNCH(sum_partials, blocks_for(count * tiles * THREADS, THREADS), THREADS, out, partial, ld, count, parts, O);
}
