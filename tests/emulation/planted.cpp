#include "emulation/planted.h"

#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>

#include <vector>

#include "emulation/emulation.h"

enum { N = 64 };

static void check(cudaError_t code, int line) {
    if (code == cudaSuccess) return;
    printf("line %d: %s\n", line, cudaGetErrorString(code));
    exit(2);
}
#define CHECK(call) check(call, __LINE__)
#define RUN(kernel, blocks, threads, ...) \
    do { \
        LAUNCH_ON(stream, kernel, blocks, threads, 0, __VA_ARGS__); \
        CHECK(cudaGetLastError()); \
    } while (0)

static cudaStream_t stream, other;

static float *device_floats(int n) {
    void *at;
    CHECK(cudaMalloc(&at, (size_t)n * sizeof(float)));
    return (float *)at;
}

static float *pinned_floats(int n, float value) {
    void *at;
    CHECK(cudaMallocHost(&at, (size_t)n * sizeof(float)));
    for (int i = 0; i < n; i++) ((float *)at)[i] = value;
    return (float *)at;
}

/* 0, 1, 2, ... */
static float *device_numbers(int n) {
    std::vector<float> numbers;
    for (int i = 0; i < n; i++) numbers.push_back((float)i);
    float *at = device_floats(n);
    CHECK(cudaMemcpyAsync(at, numbers.data(), (size_t)n * sizeof(float), cudaMemcpyHostToDevice, stream));
    return at;
}

template <class F> static void compare(const float *at, int n, F expected) {
    std::vector<float> found((size_t)n);
    int wrong = 0;
    CHECK(cudaMemcpyAsync(found.data(), at, (size_t)n * sizeof(float), cudaMemcpyDeviceToHost, stream));
    for (int i = 0; i < n; i++) wrong += found[(size_t)i] != expected(i);
    printf("%d wrong\n", wrong);
}

/* out[i] = in[i + 1] + in[i + 2], by way of one array that is read and written: the barrier between is the planted
 * one. In ascending order nobody notices. */
__global__ static void neighbours(float *out, const float *in, bool barrier) {
    SHARED(float, row, [N]);
    int i = (int)threadIdx.x;
    row[i] = in[i];
    __syncthreads();
    float next = i + 1 < N ? row[i + 1] : 0;
    if (barrier) __syncthreads();
    row[i] = next;
    __syncthreads();
    out[i] = row[i] + (i + 1 < N ? row[i + 1] : 0);
}

static void run_neighbours(bool barrier) {
    float *out = device_floats(N), *in = device_numbers(N);
    RUN(neighbours, 1, N, out, in, barrier);
    compare(out, N, [](int i) { return (float)((i + 1 < N ? i + 1 : 0) + (i + 2 < N ? i + 2 : 0)); });
}

/* The same of lanes. */
__global__ static void partners(float *out, const float *in, bool barrier) {
    SHARED(float, row, [N]);
    int i = (int)threadIdx.x;
    row[i] = in[i];
    if (barrier) __syncwarp();
    out[i] = row[i ^ 1];
}

static void run_partners(bool barrier) {
    float *out = device_floats(N), *in = device_numbers(N);
    RUN(partners, 1, N, out, in, barrier);
    compare(out, N, [](int i) { return (float)(i ^ 1); });
}

/* Blocks that write to one place, or each to its own. */
__global__ static void places(float *out, bool own) {
    if (threadIdx.x == 0) out[own ? blockIdx.x : 0] = 1;
}

static void run_places(bool own) {
    float *out = device_floats(4);
    RUN(places, 4, 32, out, own);
    compare(out, 1, [](int) { return 1.0F; });
}

__global__ static void fill(float *out, int from, int to) {
    int i = from + (int)threadIdx.x;
    if (i < to) out[i] = 1;
}

__global__ static void fill_shared(float *out, int size) {
    SHARED(float, row, [N]);
    float *at = row;
    for (int i = 0; i < size; i++) at[i] = (float)i;
    out[threadIdx.x] = row[threadIdx.x];
}

static void run_bounds(bool within) {
    float *out = device_floats(N);
    RUN(fill, 1, N, out, within ? 0 : 1, N + 1);
    compare(out, N, [](int) { return 1.0F; });
}

static void run_shared_bounds(bool within) {
    float *out = device_floats(1);
    RUN(fill_shared, 1, 1, out, within ? (int)N : N + 1);
    compare(out, 1, [](int) { return 0.0F; });
}

/* Both sorts of shared memory, and who reads one number too many of the bytes that the launch gives. */
__global__ static void rotate(float *out, const float *in, int last) {
    SHARED(float, before, [N]);
    DYN_SHARED(float, row);
    int i = (int)threadIdx.x;
    before[i] = -1;
    row[i] = in[i];
    __syncthreads();
    out[blockIdx.x * N + i] = row[i < N - 1 ? i + 1 : last];
}

static void run_rotate(int last) {
    float *out = device_floats(2 * N), *in = device_numbers(N);
    LAUNCH_ON(stream, rotate, 2, N, N * sizeof(float), out, in, last);
    compare(out, 2 * N, [](int i) { return (float)((i + 1) % N); });
}

enum divergence { TOGETHER, ENDED, ELSEWHERE };
__global__ static void meet_at_barrier(float *out, int divergence) {
    if (divergence == ENDED && threadIdx.x >= N / 2) return;
    if (divergence == ELSEWHERE && threadIdx.x >= N / 2)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1;
}

__global__ static void meet_together(float *out) {
    __syncthreads();
    out[threadIdx.x] = 1;
}

static void run_barrier(int divergence) {
    float *out = device_floats(N);
    if (divergence == TOGETHER)
        RUN(meet_together, 1, N, out);
    else
        RUN(meet_at_barrier, 1, N, out, divergence);
    compare(out, N, [](int) { return 1.0F; });
}

/* One warp, each lane with the mask that it is given. */
__global__ static void shuffle_by(float *out, unsigned low, unsigned high, int last) {
    int lane = (int)threadIdx.x;
    if (lane >= last) return;
    float sum = __shfl_xor_sync(lane < 16 ? low : high, (float)lane, 1);
    out[lane] = sum;
}

static void run_mask(unsigned low, unsigned high, int threads, int last) {
    float *out = device_floats(32);
    RUN(shuffle_by, 1, threads, out, low, high, last);
    compare(out, threads, [](int i) { return (float)(i ^ 1); });
}

__global__ static void shuffle_all(int *wrong) {
    const unsigned all = 0xFFFFFFFFU;
    int i = (int)threadIdx.x % 32, errors = 0;
    for (int d = 1; d < 32; d *= 2) {
        errors += __shfl_xor_sync(all, i, d) != (i ^ d);
        errors += __shfl_up_sync(all, (double)i, (unsigned)d) != (i < d ? i : i - d);
        errors += __shfl_down_sync(all, (float)i, (unsigned)d) != (float)(i + d > 31 ? i : i + d);
        errors += __shfl_sync(all, (int64_t)i, d) != d;
        errors += __shfl_sync(all, i, 1, 8) != i / 8 * 8 + 1;
        errors += __ballot_sync(all, i < d) != (1U << d) - 1;
    }
    errors += !__any_sync(all, i == 3) + __any_sync(all, i > 31) + __all_sync(all, i > 0) + !__all_sync(all, i < 32);
    errors += __syncthreads_count(i == 0) != (int)blockDim.x / 32;
    atomicAdd(wrong, errors);
}

static void run_shuffles() {
    int *wrong = (int *)device_floats(1), found;
    CHECK(cudaMemsetAsync(wrong, 0, sizeof *wrong, stream));
    RUN(shuffle_all, 3, 96, wrong);
    CHECK(cudaMemcpyAsync(&found, wrong, sizeof found, cudaMemcpyDeviceToHost, stream));
    printf("%d wrong\n", found);
}

__global__ static void double_all(float *out, const float *in) { out[threadIdx.x] = 2 * in[threadIdx.x]; }

static void run_written(bool written) {
    float *in = written ? device_numbers(N) : device_floats(N), *out = device_floats(N);
    RUN(double_all, 1, N, out, in);
    compare(out, N, [](int i) { return 2.0F * (float)i; });
}

/* `other` makes what `stream` takes. */
static void run_wait(bool waits) {
    float *in = device_floats(N), *out = device_floats(N), *host = pinned_floats(N, 1);
    cudaEvent_t event;
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    CHECK(cudaMemcpyAsync(in, host, N * sizeof(float), cudaMemcpyHostToDevice, other));
    CHECK(cudaEventRecord(event, other));
    if (waits) CHECK(cudaStreamWaitEvent(stream, event, 0));
    RUN(double_all, 1, N, out, in);
    compare(out, N, [](int) { return 2.0F; });
    CHECK(cudaEventDestroy(event));
}

static void run_reuse(bool waits) {
    float *in = device_floats(N), *host = pinned_floats(N, 1);
    CHECK(cudaMemcpyAsync(in, host, N * sizeof(float), cudaMemcpyHostToDevice, stream));
    if (waits) CHECK(cudaStreamSynchronize(stream));
    for (int i = 0; i < N; i++) host[i] = 7;
    compare(in, N, [](int) { return 1.0F; });
}

static void run_host_touches(bool touches) {
    float *at = device_numbers(N), found;
    CHECK(cudaStreamSynchronize(stream));
    if (touches)
        found = at[3];
    else
        CHECK(cudaMemcpy(&found, at + 3, sizeof found, cudaMemcpyDeviceToHost));
    printf("%d wrong\n", found != 3.0F);
}

static void run_host_pointer(bool host) {
    std::vector<float> memory(N);
    float *out = device_floats(N), *in = device_numbers(N);
    RUN(double_all, 1, N, out, host ? memory.data() : in);
    compare(out, N, [](int i) { return 2.0F * (float)i; });
}

static void run_memory() {
    size_t free, total;
    void *at;
    CHECK(cudaMemGetInfo(&free, &total));
    int wrong = cudaMalloc(&at, free + 1) != cudaErrorMemoryAllocation;
    wrong += cudaGetLastError() != cudaErrorMemoryAllocation;
    printf("%d wrong, %zu MiB\n", wrong, total >> 20);
}

static void run_devices() {
    int count = -7;
    cudaError_t error = cudaGetDeviceCount(&count);
    printf("%d devices, error %d\n", count, error);
}

/* C [3, 2] = A^T [3, 4] B [4, 2], column-major, of small whole numbers: exact in bf16 too. */
static void run_gemm(bool bf16) {
    enum { M = 3, O = 2, K = 4 };
    cublasHandle_t blas;
    float *a = device_numbers(K * M), *b = device_numbers(K * O), *c = device_floats(M * O), alpha = 2, beta = 0;
    cublasCreate(&blas);
    cublasSetStream(blas, stream);
    __nv_bfloat16 short_numbers[K * M];
    for (int i = 0; i < K * M; i++) short_numbers[i] = __float2bfloat16_rn((float)i);
    void *memory = device_floats(K * M);
    CHECK(cudaMemcpyAsync(memory, short_numbers, sizeof short_numbers, cudaMemcpyHostToDevice, stream));
    cudaDataType type = bf16 ? CUDA_R_16BF : CUDA_R_32F;
    const void *left = bf16 ? memory : a, *right = bf16 ? memory : b;
    for (int times = 0; times < 2; times++, beta = 1) /* first over NaN, then added */
        if (cublasGemmEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, M, O, K, &alpha, left, type, K, right, type, K, &beta, c,
                         CUDA_R_32F, M, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT) != CUBLAS_STATUS_SUCCESS)
            printf("no product\n");
    compare(c, M * O, [](int i) {
        int sum = 0;
        for (int k = 0; k < K; k++) sum += (i % M * K + k) * (i / M * K + k);
        return (float)(4 * sum);
    });
    cublasDestroy(blas);
}

/* Two products [M, O] one after the other in memory, by strides, and by pointers with factors in device memory. */
static void run_gemm_batched(bool pointers) {
    enum { M = 2, O = 3, K = 2, COUNT = 2 };
    cublasHandle_t blas;
    float *a = device_numbers(COUNT * M * K), *b = device_numbers(COUNT * K * O), *c = device_floats(COUNT * M * O);
    float *factors = device_numbers(2), one = 1, zero = 0; /* beta 0, alpha 1 */
    std::vector<const void *> places;
    for (int i = 0; i < COUNT; i++) places.push_back(a + i * M * K);
    for (int i = 0; i < COUNT; i++) places.push_back(b + i * K * O);
    for (int i = 0; i < COUNT; i++) places.push_back(c + i * M * O);
    void *memory = device_floats(2 * 3 * COUNT), *const *at = (void *const *)memory;
    CHECK(cudaMemcpyAsync(memory, places.data(), places.size() * sizeof(void *), cudaMemcpyHostToDevice, stream));
    cublasCreate(&blas);
    cublasSetStream(blas, stream);
    if (pointers) {
        cublasSetPointerMode(blas, CUBLAS_POINTER_MODE_DEVICE);
        if (cublasGemmBatchedEx(blas, CUBLAS_OP_N, CUBLAS_OP_N, M, O, K, factors + 1, at, CUDA_R_32F, M, at + COUNT,
                                CUDA_R_32F, K, factors, at + 2 * COUNT, CUDA_R_32F, M, COUNT, CUBLAS_COMPUTE_32F,
                                CUBLAS_GEMM_DEFAULT) != CUBLAS_STATUS_SUCCESS)
            printf("no product\n");
    } else if (cublasSgemmStridedBatched(blas, CUBLAS_OP_N, CUBLAS_OP_N, M, O, K, &one, a, M, M * K, b, K, K * O, &zero,
                                         c, M, M * O, COUNT) != CUBLAS_STATUS_SUCCESS)
        printf("no product\n");
    compare(c, COUNT * M * O, [](int i) {
        int batch = i / (M * O), row = i % M, column = i / M % O, sum = 0;
        for (int k = 0; k < K; k++) sum += (batch * M * K + k * M + row) * (batch * K * O + column * K + k);
        return (float)sum;
    });
    cublasDestroy(blas);
}

int planted_run(const char *name) {
    static const struct {
        const char *name;
        void (*run)();
    } cases[] = {
        {"neighbours", [] { run_neighbours(true); }},
        {"neighbours-no-barrier", [] { run_neighbours(false); }},
        {"partners", [] { run_partners(true); }},
        {"partners-no-barrier", [] { run_partners(false); }},
        {"places", [] { run_places(true); }},
        {"places-shared", [] { run_places(false); }},
        {"bounds", [] { run_bounds(true); }},
        {"bounds-beyond", [] { run_bounds(false); }},
        {"shared-bounds", [] { run_shared_bounds(true); }},
        {"shared-bounds-beyond", [] { run_shared_bounds(false); }},
        {"dynamic", [] { run_rotate(0); }},
        {"dynamic-beyond", [] { run_rotate(N); }},
        {"barrier", [] { run_barrier(TOGETHER); }},
        {"barrier-ended", [] { run_barrier(ENDED); }},
        {"barrier-elsewhere", [] { run_barrier(ELSEWHERE); }},
        {"mask", [] { run_mask(0xFFFFFFFFU, 0xFFFFFFFFU, 32, 32); }},
        {"mask-halves", [] { run_mask(0xFFFFU, 0xFFFF0000U, 32, 32); }},
        {"mask-of-others", [] { run_mask(0xFFFFU, 0xFFFFU, 32, 32); }},
        {"mask-of-two-minds", [] { run_mask(0xFFFFFFFFU, 0xFFFF0001U, 32, 32); }},
        {"mask-of-the-ended", [] { run_mask(0xFFFFFFFFU, 0xFFFFFFFFU, 32, 24); }},
        {"mask-beyond", [] { run_mask(0xFFFFFFFFU, 0xFFFFFFFFU, 24, 32); }},
        {"shuffles", run_shuffles},
        {"written", [] { run_written(true); }},
        {"never-written", [] { run_written(false); }},
        {"wait", [] { run_wait(true); }},
        {"no-wait", [] { run_wait(false); }},
        {"pinned", [] { run_reuse(true); }},
        {"pinned-reused", [] { run_reuse(false); }},
        {"host-copies", [] { run_host_touches(false); }},
        {"host-touches", [] { run_host_touches(true); }},
        {"device-pointer", [] { run_host_pointer(false); }},
        {"host-pointer", [] { run_host_pointer(true); }},
        {"memory", run_memory},
        {"devices", run_devices},
        {"gemm", [] { run_gemm(false); }},
        {"gemm-bf16", [] { run_gemm(true); }},
        {"gemm-strides", [] { run_gemm_batched(false); }},
        {"gemm-pointers", [] { run_gemm_batched(true); }},
    };
    for (const auto &c : cases) {
        if (strcmp(c.name, name) != 0) continue;
        if (strcmp(name, "devices") != 0) {
            CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
            CHECK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
        }
        c.run();
        return 0;
    }
    printf("no case %s\n", name);
    return 1;
}
