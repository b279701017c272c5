/* Which GPUs there are, and how the program takes one. */
#include <stdio.h>
#include <sys/prctl.h>

#include "base/hash.h"
#include "kernels/cuda/cuda.h"

extern const struct device device_cuda; /* device.cu */

/* The lowest compute capability that the program has code for, times 100. */
static int lowest_capability(void) {
#ifdef __CUDA_ARCH_LIST__
    const int list[] = {__CUDA_ARCH_LIST__};
#else
    const int list[] = {900};
#endif
    int lowest = list[0];
    for (int capability : list) lowest = capability < lowest ? capability : lowest;
    return lowest / 10;
}

static bool is_too_old(int index, char *reason, size_t size) {
    int major = 0, minor = 0, lowest = lowest_capability();
    struct cudaDeviceProp properties;
    cudaError_t code = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
    if (!code) code = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index);
    if (!code && 10 * major + minor >= lowest) return false;
    if (!code) code = cudaGetDeviceProperties(&properties, index);
    if (code)
        snprintf(reason, size, "GPU %d: %s", index, cudaGetErrorString(code));
    else
        snprintf(reason, size, "GPU %d is %s of compute capability %d.%d, expected compute capability %d.%d or above",
                 index, properties.name, major, minor, lowest / 10, lowest % 10);
    return true;
}

int ops_cuda_devices(const char **reason) {
    static char words[512];
    int count = 0, driver = 0, runtime = 0;
    *reason = words;
    cudaError_t code = cudaGetDeviceCount(&count);
    cudaGetLastError();
    if (code == cudaErrorInsufficientDriver) {
        cudaDriverGetVersion(&driver);
        cudaRuntimeGetVersion(&runtime);
        if (driver)
            snprintf(words, sizeof words, "the driver serves CUDA %d.%d, the program's CUDA is %d.%d", driver / 1000,
                     driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
        else
            snprintf(words, sizeof words, "no NVIDIA driver (the program's CUDA is %d.%d)", runtime / 1000,
                     runtime % 1000 / 10);
        return 0;
    }
    if (code || count == 0) {
        snprintf(words, sizeof words, "%s", code ? cudaGetErrorString(code) : "no GPU");
        return 0;
    }
    for (int index = 0; index < count; ++index)
        if (is_too_old(index, words, sizeof words)) return 0;
    return count;
}

uint64_t ops_cuda_identity(int index) {
    struct cudaDeviceProp properties;
    CUDA(cudaGetDeviceProperties(&properties, index));
    return hash_bytes(&properties.uuid, sizeof properties.uuid, 0);
}

static enum status check(int index, const char *call, const char *error) {
    return error ? status_fail(STATUS_INTERNAL, "GPU %d: %s: %s", index, call, error) : STATUS_OK;
}
static const char *words_of(cudaError_t code) { return code ? cudaGetErrorString(code) : NULL; }
static const char *words_of(cublasStatus_t code) { return code ? cublasGetStatusString(code) : NULL; }
#define HAVE(call) TRY(check(index, #call, words_of(call)))

/* What is on its way to other ranks goes before what computes: it is short, and they wait for it; rows before
 * gradients, which nobody wants before the end. */
static enum status start_streams(int index) {
    int lowest = 0, highest = 0;
    HAVE(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
    const int priorities[DEVICE_QUEUES] = {lowest, highest, (lowest + highest) / 2};
    for (int queue = 0; queue < DEVICE_QUEUES; ++queue)
        HAVE(cudaStreamCreateWithPriority(&cuda.stream[queue], cudaStreamNonBlocking, priorities[queue]));
    return STATUS_OK;
}

/* A workspace of ours: cuBLAS allocates none of its own in a step, and picks the same algorithms in every run. */
static enum status start_blas(int index) {
    const size_t bytes = 32 << 20;
    void *workspace = NULL;
    HAVE(cublasCreate(&cuda.blas));
    HAVE(cublasSetStream(cuda.blas, cuda.stream[QUEUE_COMPUTE]));
    HAVE(cudaMalloc(&workspace, bytes));
    HAVE(cublasSetWorkspace(cuda.blas, workspace, bytes));
    return STATUS_OK;
}

enum status ops_init_cuda(int index, enum precision precision) {
    static struct ops table;
    const char *reason = "";
    int count = ops_cuda_devices(&reason);
    if (index < 0 || index >= count)
        return count ? status_fail(STATUS_INTERNAL, "GPU %d: expected below %d", index, count)
                     : status_fail(STATUS_INTERNAL, "GPU %d: %s", index, reason);
    prctl(PR_SET_TIMERSLACK, 1000); /* ns: the naps of a wait are to be as short as they say */
    HAVE(cudaSetDevice(index));
    HAVE(cudaDeviceGetAttribute(&cuda.processors, cudaDevAttrMultiProcessorCount, index));
    TRY(start_streams(index));
    TRY(start_blas(index));
    cuda.precision = precision;
    table.name = "cuda";
    cuda_gemm_ops(&table);
    cuda_elementwise_ops(&table);
    cuda_embedding_ops(&table);
    cuda_norm_ops(&table);
    cuda_attention_ops(&table);
    cuda_softmax_ops(&table);
    cuda_route_ops(&table);
    cuda_quantize_ops(&table);
    cuda_optimizer_ops(&table);
    device = &device_cuda;
    ops = &table;
    return STATUS_OK;
}

const char *ops_cuda_description(void) {
    static char words[384];
    struct cudaDeviceProp properties;
    int index = 0, driver = 0, runtime = 0, blas = 0;
    if (device != &device_cuda) return "";
    CUDA(cudaGetDevice(&index));
    CUDA(cudaGetDeviceProperties(&properties, index));
    CUDA(cudaDriverGetVersion(&driver));
    CUDA(cudaRuntimeGetVersion(&runtime));
    CUBLAS(cublasGetVersion(cuda.blas, &blas));
    snprintf(words, sizeof words, "%s, CUDA %d.%d, driver %d.%d, cuBLAS %d.%d.%d", properties.name, runtime / 1000,
             runtime % 1000 / 10, driver / 1000, driver % 1000 / 10, blas / 10000, blas / 100 % 100, blas % 100);
    return words;
}
