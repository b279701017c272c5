/* What the CUDA files share. Each family of operations is a file, as in kernels/cpu; device.cu has the queues and the
 * memory, ops_table.cu gathers the operations. */
#ifndef VQMOE_CUDA_H
#define VQMOE_CUDA_H

#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "base/device.h"
#include "base/log.h"
#include "kernels/ops.h"
}

struct cuda_state {
    cudaStream_t stream[DEVICE_QUEUES];
    cublasHandle_t blas; /* on QUEUE_COMPUTE */
    enum precision precision;
    int processors; /* multiprocessors */
};
extern struct cuda_state cuda;

/* Ends the job with the call and CUDA's own words, like every failure of an operation. */
void cuda_check(cudaError_t code, const char *call, const char *file, int line);
void cublas_check(cublasStatus_t code, const char *call, const char *file, int line);
#define CUDA(call) cuda_check(call, #call, __FILE__, __LINE__)
#define CUBLAS(call) cublas_check(call, #call, __FILE__, __LINE__)

#include "kernels/cuda/launch.h"

/* Device memory for the duration of one operation on QUEUE_COMPUTE: the next call with the same slot gets the same
 * memory, larger where need be (which waits; never once shapes are warm). */
enum workspace_slot { WORKSPACE_GEMM_A, WORKSPACE_GEMM_B, WORKSPACE_GEMM_C, WORKSPACE_PARTIAL, WORKSPACE_SLOTS };
void *cuda_workspace(enum workspace_slot slot, size_t bytes);

enum { WARP = 32 };
static const unsigned ALL_LANES = 0xFFFFFFFFu;

__device__ static inline float warp_sum(float x) {
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(ALL_LANES, x, lanes);
    return x;
}

__device__ static inline double warp_sum(double x) {
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(ALL_LANES, x, lanes);
    return x;
}

__device__ static inline float warp_max(float x) {
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, lanes));
    return x;
}

/* Blocks of so many threads for n of them; at least one block, at most what a grid-stride loop keeps busy. */
static inline unsigned blocks_for(int64_t n, int threads) {
    int64_t blocks = (n + threads - 1) / threads, most = (int64_t)cuda.processors * 32;
    return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

/* Fills this family's entries of the table. */
void cuda_gemm_ops(struct ops *table);
void cuda_elementwise_ops(struct ops *table);
void cuda_embedding_ops(struct ops *table);
void cuda_norm_ops(struct ops *table);
void cuda_attention_ops(struct ops *table);
void cuda_softmax_ops(struct ops *table);
void cuda_route_ops(struct ops *table);
void cuda_quantize_ops(struct ops *table);
void cuda_optimizer_ops(struct ops *table);

#endif
