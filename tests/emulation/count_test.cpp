/* Loads and stores of kernels whose numbers are known. */
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <stdio.h>
#include <string.h>

#include "emulation/count.h"
#include "emulation/kernel.h"

enum { BLOCKS = 4, THREADS = 256, N = BLOCKS * THREADS, STRIDE = 8 };

__global__ static void copy(float *out, const float *in) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    out[i] = in[i];
}

__global__ static void copy_vectors(float4 *out, const float4 *in) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < N / 4) out[i] = in[i];
}

/* Every block reads the same, twice; shared memory is not counted. */
__global__ static void sum_rows(float *out, const float *in) {
    SHARED(float, row, [THREADS]);
    row[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    float next = row[(threadIdx.x + 1) % THREADS];
    out[blockIdx.x * blockDim.x + threadIdx.x] = next + in[threadIdx.x];
}

/* One number of each sector. */
__global__ static void stride(float *out, const float *in) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    out[i] = in[i * STRIDE];
}

__global__ static void tally(int *out) { atomicAdd(out, 1); }

__global__ static void copy_bytes(float *out, const float *in, int bytes) { memcpy(out, in, (size_t)bytes); }

struct expected {
    const char *kernel;
    emulation_count count;
};
static const expected all[] = {
    {"copy", {2, 0, 8 * N, 8 * N, 8 * N, 8 * N, 8 * N, 8 * N, 0}},
    {"copy_vectors", {1, 0, 4 * N, 4 * N, 4 * N, 4 * N, 4 * N, 4 * N, 0}},
    {"sum_rows", {1, 0, 8 * N, 4 * N, 4 * N, 4 * N, 4 * THREADS, 4 * N, 4 * THREADS}},
    {"stride", {1, 0, 4 * N, 4 * N, 32 * N, 4 * N, 4 * N, 4 * N, 0}},
    {"tally", {1, 0, 4 * N, 4 * N, 32 * BLOCKS, 32 * BLOCKS, 4, 4, 32}},
    {"copy_bytes", {1, 0, 36, 36, 64, 64, 36, 36, 0}},
    {"gemm", {2, 2 * 2 * 8 * 4 * 16, 2 * 4 * (8 * 16 + 4 * 16) + 4 * 8 * 4, 2 * 4 * 8 * 4, 0, 0, 0, 0, 0}},
};
static int found, failures;

static void compare(const char *kernel, const emulation_count *count, void *) {
    for (const expected &e : all) {
        if (strcmp(e.kernel, kernel) != 0) continue;
        emulation_count wanted = e.count;
        found++;
        if (strcmp(kernel, "gemm") == 0) {
            wanted.block_loaded = wanted.least_loaded = wanted.loaded;
            wanted.block_stored = wanted.least_stored = wanted.stored;
        }
        if (memcmp(&wanted, count, sizeof wanted) == 0) return;
    }
    failures++;
    printf("%s: %g launches, %g operations; loaded and stored: %g %g, by blocks %g %g, least %g %g\n", kernel,
           count->launches, count->operations, count->loaded, count->stored, count->block_loaded, count->block_stored,
           count->least_loaded, count->least_stored);
}

int main() {
    void *in, *out;
    cudaStream_t stream = nullptr;
    cublasHandle_t blas;
    float one = 1, beta = 0;
    cudaMalloc(&in, N * STRIDE * sizeof(float));
    cudaMalloc(&out, N * sizeof(float));
    cudaMemset(in, 0, N * STRIDE * sizeof(float));
    LAUNCH_ON(stream, copy, BLOCKS, THREADS, 0, (float *)out, (float *)in);
    cudaDeviceSynchronize();
    emulation_count_reset();
    for (int i = 0; i < 2; i++) LAUNCH_ON(stream, copy, BLOCKS, THREADS, 0, (float *)out, (float *)in);
    LAUNCH_ON(stream, (copy_vectors), BLOCKS, THREADS, 0, (float4 *)out, (float4 *)in);
    LAUNCH_ON(stream, sum_rows, BLOCKS, THREADS, 0, (float *)out, (float *)in);
    LAUNCH_ON(stream, stride, BLOCKS, THREADS, 0, (float *)out, (float *)in);
    LAUNCH_ON(stream, tally, BLOCKS, THREADS, 0, (int *)out);
    LAUNCH_ON(stream, copy_bytes, 1, 1, 0, (float *)out, (float *)in, 36);
    cublasCreate(&blas);
    for (int i = 0; i < 2; i++, beta = 1)
        cublasSgemm(blas, CUBLAS_OP_N, CUBLAS_OP_N, 8, 4, 16, &one, (float *)in, 8, (float *)in, 16, &beta,
                    (float *)out, 8);
    cudaDeviceSynchronize();
    cublasDestroy(blas);
    emulation_count_each(compare, nullptr);
    bool missing = found != (int)(sizeof all / sizeof *all);
    printf("%d kernels, %d failed\n", found, failures + missing);
    return failures > 0 || missing;
}
