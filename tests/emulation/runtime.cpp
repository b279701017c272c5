/* The device, errors, copies and launches. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>
#include <vector>

#include "emulation/emulation.h"

namespace emulation {

static const int PROCESSORS = 132, MOST_SHARED = 227 << 10, USUAL_SHARED = 48 << 10;
static int current_device;
static cudaError_t last_error = cudaSuccess;
static std::map<const void *, size_t> &dynamic_bytes = *new std::map<const void *, size_t>;

[[noreturn]] static void die_with(const char *before, const char *format, va_list arguments) {
    fflush(stdout);
    fprintf(stderr, "vqmoe: emulation: %s", before);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    abort();
}

void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    die_with("", format, arguments);
}

void die_at(site at, const char *format, ...) {
    char before[600];
    va_list arguments;
    va_start(arguments, format);
    snprintf(before, sizeof before, "%s:%d: %s: ", at.file, at.line, running_thread());
    die_with(before, format, arguments);
}

const char *setting(const char *name, const char *fallback) {
    const char *text = getenv(name);
    return text && *text ? text : fallback;
}

int64_t setting_number(const char *name, int64_t fallback) {
    const char *text = setting(name, nullptr);
    char *end;
    if (!text) return fallback;
    long long number = strtoll(text, &end, 10);
    if (*end || number < 0) die("%s: expected a number, found %s", name, text);
    return number;
}

void first_use() {
    static bool said;
    if (said) return;
    said = true;
    if (strcmp(setting("OMPI_COMM_WORLD_RANK", "0"), "0") == 0)
        fprintf(stderr, "vqmoe: CUDA is emulated: no GPU is involved\n");
}

cudaError_t report(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

size_t most_dynamic_bytes(const void *function) {
    auto found = dynamic_bytes.find(function);
    return found == dynamic_bytes.end() ? USUAL_SHARED : found->second;
}

struct kernel_work : work {
    kernel_call *call;
    explicit kernel_work(kernel_call *given) : call(given) {}
    ~kernel_work() override { delete call; }
    bool advance() override {
        execute(call);
        return true;
    }
};

static cudaError_t check_shape(const kernel_call *call) {
    const dim3 &g = call->grid, &b = call->block;
    uint64_t threads = (uint64_t)b.x * b.y * b.z, blocks = (uint64_t)g.x * g.y * g.z;
    if (threads == 0 || threads > 1024 || b.z > 64 || blocks == 0 || g.x > 0x7FFFFFFFU || g.y > 65535 || g.z > 65535)
        return cudaErrorInvalidConfiguration;
    return call->bytes > most_dynamic_bytes(call->function) ? cudaErrorInvalidValue : cudaSuccess;
}

void launch(cudaStream_t stream, kernel_call *call) {
    first_use();
    kernel_work *work = new kernel_work(call);
    if (report(check_shape(call)) != cudaSuccess) {
        delete work;
        return;
    }
    if (setting_number("VQMOE_EMULATION_PROTECT", 0) != 0)
        for (int i = 0; i < call->arguments(); i++)
            if (call->pointer(i) && !find_allocation(call->pointer(i)))
                die("%s:%d: kernel %s: argument %d points to ordinary host memory", call->at.file, call->at.line,
                    call->name, i + 1);
    enqueue(stream, work);
}

/* Rows of bytes; one row is a plain copy. */
struct rows {
    char *to;
    size_t to_pitch;
    const char *from;
    size_t from_pitch, width, height;
};

struct copy_work : work {
    rows r;
    std::vector<char> staged; /* what pageable memory held at the time of the call */
    bool advance() override {
        for (size_t i = 0; i < r.height; i++) memmove(r.to + i * r.to_pitch, r.from + i * r.from_pitch, r.width);
        return true;
    }
};

static memory_kind kind_of(const void *at) {
    const allocation *a = find_allocation(at);
    return a ? a->kind : MEMORY_HOST;
}

/* The pointer is what the kind of copy says, and the bytes are there. */
static bool fits(const void *at, size_t bytes, bool on_device, bool any) {
    memory_kind kind = kind_of(at);
    if (!any && on_device && kind != MEMORY_DEVICE && kind != MEMORY_MANAGED) return false;
    if (!any && !on_device && kind == MEMORY_DEVICE) return false;
    return kind == MEMORY_HOST || device_reaches(at, bytes);
}

static cudaError_t copy(rows r, cudaMemcpyKind kind, cudaStream_t stream, bool waits) {
    first_use();
    if (r.width == 0 || r.height == 0) return cudaSuccess;
    size_t to_bytes = (r.height - 1) * r.to_pitch + r.width, from_bytes = (r.height - 1) * r.from_pitch + r.width;
    bool any = kind == cudaMemcpyDefault,
         to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (r.height > 1 && (r.to_pitch < r.width || r.from_pitch < r.width)) return report(cudaErrorInvalidPitchValue);
    if (!fits(r.to, to_bytes, to_device, any) || !fits(r.from, from_bytes, from_device, any))
        return report(cudaErrorInvalidValue);
    copy_work *work = new copy_work;
    work->r = r;
    if (kind_of(r.from) == MEMORY_HOST) {
        work->staged.assign(r.from, r.from + from_bytes);
        work->r.from = work->staged.data();
    }
    enqueue(stream, work);
    bool pageable_result = kind_of(r.to) == MEMORY_HOST;
    bool within_device = kind_of(r.to) == MEMORY_DEVICE && kind_of(r.from) == MEMORY_DEVICE;
    if (pageable_result || (waits && !within_device)) wait_for(place_of(stream));
    return cudaSuccess;
}

struct set_work : work {
    void *at;
    int byte;
    size_t bytes;
    bool advance() override {
        memset(at, byte, bytes);
        return true;
    }
};

} // namespace emulation

using namespace emulation;

static rows one_row(void *to, const void *from, size_t bytes) {
    return {(char *)to, bytes, (const char *)from, bytes, bytes, 1};
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    return copy(one_row(to, from, bytes), kind, nullptr, true);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    return copy(one_row(to, from, bytes), kind, stream, false);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
    return copy({(char *)to, to_pitch, (const char *)from, from_pitch, width, height}, kind, stream, false);
}

cudaError_t cudaMemsetAsync(void *at, int byte, size_t bytes, cudaStream_t stream) {
    first_use();
    if (bytes == 0) return cudaSuccess;
    if (!device_reaches(at, bytes)) return report(cudaErrorInvalidValue);
    set_work *work = new set_work;
    work->at = at;
    work->byte = byte;
    work->bytes = bytes;
    enqueue(stream, work);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *at, int byte, size_t bytes) { return cudaMemsetAsync(at, byte, bytes, nullptr); }

/* VQMOE_EMULATION_GPUS: "none" is a machine without a driver. */
cudaError_t cudaGetDeviceCount(int *count) {
    if (strcmp(setting("VQMOE_EMULATION_GPUS", "8"), "none") == 0) return report(cudaErrorInsufficientDriver);
    *count = (int)setting_number("VQMOE_EMULATION_GPUS", 8);
    return *count > 0 ? cudaSuccess : report(cudaErrorNoDevice);
}

static bool is_device(int device) {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess && device >= 0 && device < count;
}

cudaError_t cudaSetDevice(int device) {
    if (!is_device(device)) return report(cudaErrorInvalidDevice);
    first_use();
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
    size_t free;
    if (!is_device(device)) return report(cudaErrorInvalidDevice);
    *properties = {};
    strcpy(properties->name, "emulated GPU");
    cudaMemGetInfo(&free, &properties->totalGlobalMem);
    properties->sharedMemPerBlock = USUAL_SHARED;
    properties->sharedMemPerBlockOptin = MOST_SHARED;
    properties->sharedMemPerMultiprocessor = MOST_SHARED + 1024;
    properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->major = 9;
    properties->multiProcessorCount = PROCESSORS;
    properties->l2CacheSize = 50 << 20;
    properties->managedMemory = properties->concurrentManagedAccess = properties->unifiedAddressing = 1;
    properties->pciBusID = device;
    properties->uuid.bytes[15] = (char)(device + 1);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    static const std::map<int, int> values = {{cudaDevAttrMultiProcessorCount, PROCESSORS},
                                              {cudaDevAttrComputeCapabilityMajor, 9},
                                              {cudaDevAttrComputeCapabilityMinor, 0},
                                              {cudaDevAttrWarpSize, 32},
                                              {cudaDevAttrMaxThreadsPerBlock, 1024},
                                              {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
                                              {cudaDevAttrMaxSharedMemoryPerBlock, USUAL_SHARED},
                                              {cudaDevAttrMaxSharedMemoryPerBlockOptin, MOST_SHARED},
                                              {cudaDevAttrL2CacheSize, 50 << 20},
                                              {cudaDevAttrManagedMemory, 1},
                                              {cudaDevAttrConcurrentManagedAccess, 1},
                                              {cudaDevAttrUnifiedAddressing, 1}};
    if (!is_device(device)) return report(cudaErrorInvalidDevice);
    auto found = values.find(attribute);
    if (found == values.end()) return report(cudaErrorInvalidValue);
    *value = found->second;
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess; /* hints */
    if (value < 0 || value > MOST_SHARED) return report(cudaErrorInvalidValue);
    dynamic_bytes[function] = (size_t)value;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
    *version = strcmp(setting("VQMOE_EMULATION_GPUS", "8"), "none") == 0 ? 0 : CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetLastError() {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError() { return last_error; }

struct error_text {
    cudaError_t error;
    const char *name, *words;
};
#define ERROR(name, words) \
    { name, #name, words }
static const error_text *text_of(cudaError_t error) {
    static const error_text texts[] = {
        ERROR(cudaSuccess, "no error"),
        ERROR(cudaErrorInvalidValue, "invalid argument"),
        ERROR(cudaErrorMemoryAllocation, "out of memory"),
        ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
        ERROR(cudaErrorInvalidPitchValue, "invalid pitch argument"),
        ERROR(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
        ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
        ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
        ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
        ERROR(cudaErrorNotReady, "device not ready"),
    };
    for (const error_text &text : texts)
        if (text.error == error) return &text;
    static const error_text unknown = {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"};
    return &unknown;
}

const char *cudaGetErrorName(cudaError_t error) { return text_of(error)->name; }
const char *cudaGetErrorString(cudaError_t error) { return text_of(error)->words; }
