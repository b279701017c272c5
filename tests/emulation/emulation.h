/* What the parts of the emulated device share. The host side is one thread: whoever calls CUDA from several does so in
 * turn. */
#ifndef VQMOE_EMULATION_H
#define VQMOE_EMULATION_H

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

#include "emulation/kernel.h"

namespace emulation {

/* Ends the process with "vqmoe: emulation: ..." on stderr. */
[[noreturn]] void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same with the running kernel, block and thread, and a place in the sources. */
[[noreturn]] void die_at(site at, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The text of an environment variable; fallback where it is unset or empty. */
const char *setting(const char *name, const char *fallback);
int64_t setting_number(const char *name, int64_t fallback);

/* A piece of a stream's work. */
struct work {
    virtual ~work() {}
    /* Goes on without blocking; true: done. */
    virtual bool advance() = 0;
};

struct stream; /* what cudaStream_t points to; NULL is the default stream */
/* Takes the work over. */
void enqueue(cudaStream_t stream, work *work);
/* Work that came so far: all that was queued before. */
struct place {
    stream *on;
    uint64_t number;
};
place place_of(cudaStream_t stream);
/* What is queued on the stream from now on starts after that place. */
void enqueue_wait(cudaStream_t stream, place place);
/* The host waits. */
void wait_for(place place);
void wait_for_all();
/* True while work runs, when device memory may be touched. */
bool device_is_working();

enum memory_kind { MEMORY_HOST, MEMORY_DEVICE, MEMORY_MANAGED, MEMORY_PINNED };
struct allocation {
    char *at;
    size_t bytes;
    memory_kind kind;
    char *mapping; /* what it takes of the address space, with pages before and after that nobody may touch */
    size_t mapped;
    int device;
};
/* The allocation that the address lies in, or that ends there; NULL: ordinary memory. */
const allocation *find_allocation(const void *at);
/* Whether [at, at + bytes) lies in memory that the device can reach. */
bool device_reaches(const void *at, size_t bytes);
/* Device memory may be touched, or not any more (protected mode). */
void open_device_memory();
void close_device_memory();
/* The first call of a program that uses a device. */
void first_use();

cudaError_t report(cudaError_t error); /* remembers it for cudaGetLastError */

/* Runs all threads of a call, now. */
void execute(kernel_call *call);
/* "kernel, block (1, 0, 0), thread (3, 0, 0)", or "" outside of kernels */
const char *running_thread();
/* The address is just below the stack of the running thread. */
bool stack_overflowed(const void *at);
void shared_start_block(const kernel_call *call);
/* Blocks that come are after those that were. */
void shared_forget();
size_t most_dynamic_bytes(const void *function);

} // namespace emulation

/* The counting flavour alone has these. */
extern "C" {
/* instance: kernel_call::instance */
__attribute__((weak)) void emulation_count_begin(const char *instance);
__attribute__((weak)) void emulation_count_block(void);
__attribute__((weak)) void emulation_count_end(void);
/* Row-major, as multiply_factors has them: [N, O] = [N, I] [I, O], `count` of them; bytes of an element of the factors
 * and of the result; adds: the result is read too. */
__attribute__((weak)) void emulation_count_gemm(int64_t N, int64_t O, int64_t I, int64_t count, int factor_bytes,
                                                int result_bytes, bool adds);
}

/* Sanitizers, where the program has them. */
extern "C" {
__attribute__((weak)) void __asan_poison_memory_region(void const volatile *at, size_t bytes);
__attribute__((weak)) void __asan_unpoison_memory_region(void const volatile *at, size_t bytes);
__attribute__((weak)) void __sanitizer_start_switch_fiber(void **fake_stack, const void *bottom, size_t bytes);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void *fake_stack, const void **bottom, size_t *bytes);
__attribute__((weak)) void *__tsan_create_fiber(unsigned flags);
__attribute__((weak)) void *__tsan_get_current_fiber(void);
__attribute__((weak)) void __tsan_switch_to_fiber(void *fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void *at);
__attribute__((weak)) void __tsan_release(void *at);
__attribute__((weak)) void AnnotateIgnoreReadsBegin(const char *file, int line);
__attribute__((weak)) void AnnotateIgnoreReadsEnd(const char *file, int line);
__attribute__((weak)) void AnnotateIgnoreWritesBegin(const char *file, int line);
__attribute__((weak)) void AnnotateIgnoreWritesEnd(const char *file, int line);
}

namespace emulation {

/* ThreadSanitizer looks on where the emulation calls malloc or memset as a thread: not its business. */
struct unseen {
    unseen() {
        if (!AnnotateIgnoreReadsBegin) return;
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    ~unseen() {
        if (!AnnotateIgnoreReadsEnd) return;
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    }
};

} // namespace emulation

#endif
