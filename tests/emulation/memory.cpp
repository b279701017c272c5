/* The memory that the device reaches: every allocation is a mapping of its own, NaN to start with, between pages that
 * nobody may touch. Protected mode: the device's alone may be touched while emulated work runs. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>

#include "emulation/emulation.h"

namespace emulation {

enum { PAGE = 4096, ALIGNMENT = 256, ALTERNATE_STACK = 64 << 10 };

static std::map<uintptr_t, allocation> &allocations = *new std::map<uintptr_t, allocation>;
static size_t used;
static struct sigaction handler_before;

static bool protects() {
    static const bool wanted = setting_number("VQMOE_EMULATION_PROTECT", 0) != 0;
    return wanted;
}

static size_t total_bytes() {
    static const size_t total = (size_t)setting_number("VQMOE_EMULATION_MEMORY", 8192) << 20;
    return total;
}

static size_t rounded(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

const allocation *find_allocation(const void *at) {
    auto above = allocations.upper_bound((uintptr_t)at);
    if (above == allocations.begin()) return nullptr;
    const allocation *a = &std::prev(above)->second;
    return (const char *)at <= a->at + a->bytes ? a : nullptr;
}

bool device_reaches(const void *at, size_t bytes) {
    if (bytes == 0) return true;
    const allocation *a = find_allocation(at);
    return a && bytes <= (size_t)(a->at + a->bytes - (const char *)at);
}

static void set_access(const allocation *a, int access) {
    if (mprotect(a->mapping + PAGE, a->mapped - 2 * PAGE, access) != 0) die("mprotect of device memory has failed");
}

void open_device_memory() {
    if (!protects()) return;
    for (auto &a : allocations)
        if (a.second.kind == MEMORY_DEVICE) set_access(&a.second, PROT_READ | PROT_WRITE);
}

void close_device_memory() {
    if (!protects()) return;
    for (auto &a : allocations)
        if (a.second.kind == MEMORY_DEVICE) set_access(&a.second, PROT_NONE);
}

/* Async-signal-unsafe, as the process is at its end. */
static void explain_fault(const char *at) {
    for (auto &entry : allocations) {
        const allocation *a = &entry.second;
        if (at < a->mapping || at >= a->mapping + a->mapped) continue;
        if (!device_is_working() && a->kind == MEMORY_DEVICE)
            die("host touched device memory at %p, byte %td of an allocation of %zu bytes", (const void *)at,
                at - a->at, a->bytes);
        die("%s: touched byte %td of an allocation of %zu bytes", running_thread(), at - a->at, a->bytes);
    }
    if (stack_overflowed(at)) die("%s: its local variables overflow the stack", running_thread());
    if (running_thread()[0] != 0)
        fprintf(stderr, "vqmoe: emulation: %s: touched %p, which is no memory\n", running_thread(), (const void *)at);
}

static void fault(int number, siginfo_t *info, void *) {
    explain_fault((const char *)info->si_addr);
    sigaction(number, &handler_before, nullptr); /* and the instruction faults once more */
}

static void catch_faults() {
    static char stack[ALTERNATE_STACK];
    static bool caught;
    if (caught || (__asan_poison_memory_region && !protects())) return;
    caught = true;
    stack_t alternate = {};
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    sigaltstack(&alternate, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &handler_before);
}

static cudaError_t allocate(void **out, size_t bytes, memory_kind kind) {
    first_use();
    catch_faults();
    if (!out) return report(cudaErrorInvalidValue);
    *out = nullptr;
    if (bytes == 0) return cudaSuccess;
    if (kind != MEMORY_PINNED && bytes > total_bytes() - used) return report(cudaErrorMemoryAllocation);
    allocation a = {};
    size_t inside = rounded(bytes, PAGE);
    a.bytes = bytes;
    a.kind = kind;
    a.mapped = inside + 2 * PAGE;
    void *mapping = mmap(nullptr, a.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) return report(cudaErrorMemoryAllocation);
    a.mapping = (char *)mapping;
    a.at = a.mapping + PAGE + inside - rounded(bytes, ALIGNMENT);
    cudaGetDevice(&a.device);
    set_access(&a, PROT_READ | PROT_WRITE);
    if (__asan_poison_memory_region) {
        __asan_poison_memory_region(a.mapping, a.mapped);
        __asan_unpoison_memory_region(a.at, bytes);
    }
    memset(a.at, 0xFF, bytes);
    if (kind == MEMORY_DEVICE && protects() && !device_is_working()) set_access(&a, PROT_NONE);
    if (kind != MEMORY_PINNED) used += bytes;
    allocations[(uintptr_t)a.at] = a;
    *out = a.at;
    return cudaSuccess;
}

/* Waits for the device, as the real one does. */
static cudaError_t release(void *at, bool pinned) {
    if (!at) return cudaSuccess;
    wait_for_all();
    auto found = allocations.find((uintptr_t)at);
    if (found == allocations.end() || (found->second.kind == MEMORY_PINNED) != pinned)
        return report(cudaErrorInvalidValue);
    allocation a = found->second;
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(a.mapping, a.mapped);
    munmap(a.mapping, a.mapped);
    if (!pinned) used -= a.bytes;
    allocations.erase(found);
    return cudaSuccess;
}

} // namespace emulation

using namespace emulation;

cudaError_t cudaMalloc(void **out, size_t bytes) { return allocate(out, bytes, MEMORY_DEVICE); }
cudaError_t cudaMallocManaged(void **out, size_t bytes, unsigned) { return allocate(out, bytes, MEMORY_MANAGED); }
cudaError_t cudaMallocHost(void **out, size_t bytes) { return allocate(out, bytes, MEMORY_PINNED); }
cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) { return allocate(out, bytes, MEMORY_PINNED); }
cudaError_t cudaFree(void *at) { return release(at, false); }
cudaError_t cudaFreeHost(void *at) { return release(at, true); }

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    first_use();
    *total = total_bytes();
    *free = total_bytes() - used;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *at) {
    const allocation *a = find_allocation(at);
    *attributes = {};
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->device = -2; /* cudaInvalidDeviceId */
    if (!a) return cudaSuccess;
    attributes->type = a->kind == MEMORY_DEVICE    ? cudaMemoryTypeDevice
                       : a->kind == MEMORY_MANAGED ? cudaMemoryTypeManaged
                                                   : cudaMemoryTypeHost;
    attributes->device = a->device;
    attributes->devicePointer = const_cast<void *>(at);
    attributes->hostPointer = a->kind == MEMORY_DEVICE ? nullptr : const_cast<void *>(at);
    return cudaSuccess;
}
