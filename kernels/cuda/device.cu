/* The GPU's memory and queues (base/device.h), and how its errors end the job. */
#include "kernels/cuda/cuda.h"

#include <time.h>

#include "base/clock.h"

struct cuda_state cuda;

/* An error of queued work is told by whatever call comes next. */
void cuda_check(cudaError_t code, const char *call, const char *file, int line) {
    if (code) log_fatal(file, line, "%s, or work queued before it: %s", call, cudaGetErrorString(code));
}

void cublas_check(cublasStatus_t code, const char *call, const char *file, int line) {
    if (code) log_fatal(file, line, "%s: %s", call, cublasGetStatusString(code));
}

/* Memory that there is not enough of is NULL; every other failure ends the job. */
static void *memory_or_null(void *memory, cudaError_t code, const char *call) {
    if (code == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* or the next launch would report it */
        return NULL;
    }
    cuda_check(code, call, __FILE__, __LINE__);
    return memory;
}

static void *cuda_allocate(size_t bytes) {
    void *memory = NULL;
    cudaError_t code = cudaMalloc(&memory, bytes ? bytes : 1);
    return memory_or_null(memory, code, "cudaMalloc");
}

/* Queued work may still use it; who waits here also looks for lost peers, cudaFree would not. */
static void cuda_release(void *memory, size_t bytes) {
    (void)bytes;
    device_finish_all();
    CUDA(cudaFree(memory));
}

static void *cuda_allocate_pinned(size_t bytes) {
    void *memory = NULL;
    cudaError_t code = cudaMallocHost(&memory, bytes ? bytes : 1);
    return memory_or_null(memory, code, "cudaMallocHost");
}

static void cuda_release_pinned(void *memory, size_t bytes) {
    (void)bytes;
    device_finish_all();
    CUDA(cudaFreeHost(memory));
}

enum { EVENTS = 256 };

/* The next event of a ring that is made as it is used. */
static struct device_mark record(cudaEvent_t ring[EVENTS], unsigned taken, unsigned flags, enum device_queue queue) {
    cudaEvent_t *event = &ring[taken % EVENTS];
    if (!*event) CUDA(cudaEventCreateWithFlags(event, flags));
    CUDA(cudaEventRecord(*event, cuda.stream[queue]));
    struct device_mark mark = {*event};
    return mark;
}

static struct device_mark cuda_mark(enum device_queue queue) {
    static cudaEvent_t ring[EVENTS];
    static unsigned taken;
    return record(ring, taken++, cudaEventDisableTiming, queue);
}

static struct device_mark cuda_stamp(enum device_queue queue) {
    static cudaEvent_t ring[EVENTS];
    static unsigned taken;
    return record(ring, taken++, cudaEventDefault, queue);
}

static double cuda_elapsed(struct device_mark from, struct device_mark to) {
    float milliseconds = 0;
    CUDA(cudaEventElapsedTime(&milliseconds, (cudaEvent_t)from.event, (cudaEvent_t)to.event));
    return 1e-3 * (double)milliseconds;
}

static void cuda_await(enum device_queue queue, struct device_mark mark) {
    if (mark.event) CUDA(cudaStreamWaitEvent(cuda.stream[queue], (cudaEvent_t)mark.event, 0));
}

static bool is_done(cudaEvent_t event) {
    cudaError_t code = cudaEventQuery(event);
    if (code == cudaErrorNotReady) {
        cudaGetLastError();
        return false;
    }
    CUDA(code);
    return true;
}

/* Polls, so that a lost peer is noticed while this rank's queue waits for it; sleeps, so that other ranks' threads on
 * the same cores go on. */
static void cuda_finish(struct device_mark mark) {
    const double spin = 100e-6, between_looks = 50e-3;
    const struct timespec nap = {0, 20000};
    double start = clock_seconds(), looked = 0;
    while (mark.event && !is_done((cudaEvent_t)mark.event)) {
        double waited = clock_seconds() - start;
        if (waited > spin) nanosleep(&nap, NULL);
        if (waited - looked < between_looks) continue;
        looked = waited;
        if (device_while_waiting) device_while_waiting(waited);
    }
}

static void cuda_set(void *at, int byte, size_t bytes) {
    CUDA(cudaMemsetAsync(at, byte, bytes, cuda.stream[QUEUE_COMPUTE]));
}

static void cuda_copy(void *to, const void *from, size_t bytes) {
    CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda.stream[QUEUE_COMPUTE]));
}

/* CUDA does not promise to have read ordinary memory on return. */
static void cuda_upload(void *to, const void *from, size_t bytes) {
    struct cudaPointerAttributes attributes;
    if (!bytes) return;
    CUDA(cudaPointerGetAttributes(&attributes, from));
    CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cuda.stream[QUEUE_COMPUTE]));
    if (attributes.type != cudaMemoryTypeHost) cuda_finish(cuda_mark(QUEUE_COMPUTE));
}

static void cuda_fetch(void *to, const void *from, size_t bytes) {
    CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cuda.stream[QUEUE_COMPUTE]));
}

/* Waits by itself first: a copy to ordinary memory waits for the queue without looking for lost peers. */
static void cuda_download(void *to, const void *from, size_t bytes) {
    cuda_finish(cuda_mark(QUEUE_COMPUTE));
    cuda_fetch(to, from, bytes);
    cuda_finish(cuda_mark(QUEUE_COMPUTE));
}

static void *cuda_stream(enum device_queue queue) { return cuda.stream[queue]; }

static void cuda_memory(size_t *free_bytes, size_t *total) { CUDA(cudaMemGetInfo(free_bytes, total)); }

extern const struct device device_cuda;
/* In the order of device.h. */
const struct device device_cuda = {
    "cuda",     false,       cuda_allocate, cuda_release, cuda_allocate_pinned, cuda_release_pinned,
    cuda_set,   cuda_copy,   cuda_upload,   cuda_fetch,   cuda_download,        cuda_mark,
    cuda_await, cuda_finish, cuda_stream,   cuda_memory,  cuda_stamp,           cuda_elapsed,
};

void *cuda_workspace(enum workspace_slot slot, size_t bytes) {
    const size_t grain = 2 << 20;
    static struct {
        void *memory;
        size_t bytes;
    } held[WORKSPACE_SLOTS];
    if (bytes <= held[slot].bytes) return held[slot].memory;
    if (held[slot].memory) cuda_release(held[slot].memory, held[slot].bytes);
    bytes = (bytes + bytes / 8 + grain - 1) / grain * grain; /* rows that arrive are now more, now fewer */
    held[slot].memory = cuda_allocate(bytes);
    held[slot].bytes = bytes;
    if (!held[slot].memory) {
        size_t left, total;
        cuda_memory(&left, &total);
        FATAL("out of device memory: an operation needs %zu MiB, %zu of %zu MiB are free: lower train.batch, raise "
              "train.accumulate, or use more ranks",
              bytes >> 20, left >> 20, total >> 20);
    }
    return held[slot].memory;
}
