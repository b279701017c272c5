/* What a CUDA compiler gives to device code and the real headers hide from a C++ compiler: the kernel side of the
 * emulation. kernels/cuda/launch.h includes it after the real cuda_runtime.h and cuda_bf16.h. */
#ifndef VQMOE_EMULATION_KERNEL_H
#define VQMOE_EMULATION_KERNEL_H

#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <tuple>
#include <type_traits>
#include <utility>

#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static const int warpSize = 32;

namespace emulation {

/* Where a barrier, a shuffle or a launch stands in the sources. */
struct site {
    const char *file;
    int line;
};

struct kernel_call {
    const char *name;
    const char *instance; /* with the values of its template's parameters, as the compiler writes them */
    site at;
    const void *function;
    dim3 grid, block;
    size_t bytes; /* of dynamic shared memory */
    virtual ~kernel_call() {}
    virtual void run() = 0; /* as one thread */
    /* Argument i if it is a pointer, else NULL. */
    virtual const void *pointer(int i) const = 0;
    virtual int arguments() const = 0;
};

template <class... P> struct kernel_call_of : kernel_call {
    void (*kernel)(P...);
    std::tuple<std::decay_t<P>...> values;

    template <class... A>
    kernel_call_of(void (*given)(P...), A &&...arguments) : kernel(given), values(std::forward<A>(arguments)...) {}
    void run() override { std::apply(kernel, values); }
    int arguments() const override { return (int)sizeof...(P); }
    const void *pointer(int i) const override {
        const void *found = nullptr;
        int argument = 0;
        std::apply([&](const auto &...value) { ((found = argument++ == i ? as_pointer(value) : found), ...); }, values);
        return found;
    }
    template <class T> static const void *as_pointer(const T &value) {
        if constexpr (std::is_pointer_v<T> && !std::is_function_v<std::remove_pointer_t<T>>)
            return (const void *)value;
        else
            return nullptr;
    }
};

/* Takes the call over. */
void launch(cudaStream_t stream, kernel_call *call);

template <auto Kernel> const char *instance_of() { return __PRETTY_FUNCTION__; }

template <class... P, class... A>
void launch_kernel(const char *name, const char *instance, site at, cudaStream_t stream, dim3 grid, dim3 block,
                   size_t bytes, void (*kernel)(P...), A &&...arguments) {
    static_assert(sizeof...(P) == sizeof...(A), "a kernel takes every argument");
    kernel_call *call = new kernel_call_of<P...>(kernel, std::forward<A>(arguments)...);
    call->name = name;
    call->instance = instance;
    call->at = at;
    call->function = (const void *)kernel;
    call->grid = grid;
    call->block = block;
    call->bytes = bytes;
    launch(stream, call);
}

/* The array of the running block that stands at this declaration. */
void *shared_array(const void *declaration, size_t bytes);
void *shared_dynamic();

void barrier(site at);
/* All threads of the block get how many came with a predicate that holds. */
int barrier_count(bool predicate, site at);

enum collective { SYNC_WARP, SHUFFLE, BALLOT };
/* The lanes of the mask meet. Shuffle: the value of lane `from` (of the warp); ballot: lanes with a value that is not
 * 0. */
uint64_t meet(collective kind, unsigned mask, uint64_t value, int from, site at);
int lane();

template <class T> T shuffle(unsigned mask, T value, int from, site at) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = meet(SHUFFLE, mask, bits, from, at);
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <class To, class From> To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From), "of one size");
    To to;
    memcpy(&to, &value, sizeof to);
    return to;
}

} // namespace emulation

#define SHARED(type, name, size) \
    static char name##_declared; \
    typedef type name##_array size; \
    name##_array &name = *(name##_array *)emulation::shared_array(&name##_declared, sizeof(name##_array))
#define DYN_SHARED(type, name) type *name = reinterpret_cast<type *>(emulation::shared_dynamic())
#define LAUNCH_ON(stream, kernel, blocks, threads, bytes, ...) \
    emulation::launch_kernel(#kernel, emulation::instance_of<kernel>(), emulation::site{__FILE__, __LINE__}, stream, \
                             dim3(blocks), dim3(threads), bytes, kernel, __VA_ARGS__)

/* The caller's place, as a last argument that nobody gives. */
#define EMULATION_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define EMULATION_HERE (emulation::site{file, line})

static inline void __syncthreads(EMULATION_SITE) { emulation::barrier(EMULATION_HERE); }
static inline int __syncthreads_count(int predicate, EMULATION_SITE) {
    return emulation::barrier_count(predicate != 0, EMULATION_HERE);
}
static inline int __syncthreads_or(int predicate, EMULATION_SITE) {
    return emulation::barrier_count(predicate != 0, EMULATION_HERE) > 0;
}
static inline int __syncthreads_and(int predicate, EMULATION_SITE) {
    return emulation::barrier_count(predicate == 0, EMULATION_HERE) == 0;
}
static inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, EMULATION_SITE) {
    emulation::meet(emulation::SYNC_WARP, mask, 0, 0, EMULATION_HERE);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATION_SITE) {
    return (unsigned)emulation::meet(emulation::BALLOT, mask, predicate != 0, 0, EMULATION_HERE);
}
static inline int __any_sync(unsigned mask, int predicate, EMULATION_SITE) {
    return emulation::meet(emulation::BALLOT, mask, predicate != 0, 0, EMULATION_HERE) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, EMULATION_SITE) {
    return emulation::meet(emulation::BALLOT, mask, predicate != 0, 0, EMULATION_HERE) == mask;
}

/* A lane that would read beyond its part of the warp reads itself. */
template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = warpSize, EMULATION_SITE) {
    int first = emulation::lane() & ~(width - 1);
    return emulation::shuffle(mask, value, first + (from & (width - 1)), EMULATION_HERE);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize, EMULATION_SITE) {
    int here = emulation::lane(), from = here ^ lanes;
    return emulation::shuffle(mask, value, from >= (here | (width - 1)) + 1 ? here : from, EMULATION_HERE);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = warpSize, EMULATION_SITE) {
    int here = emulation::lane(), from = here - (int)by;
    return emulation::shuffle(mask, value, from < (here & ~(width - 1)) ? here : from, EMULATION_HERE);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = warpSize, EMULATION_SITE) {
    int here = emulation::lane(), from = here + (int)by;
    return emulation::shuffle(mask, value, from > (here | (width - 1)) ? here : from, EMULATION_HERE);
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz((unsigned)x); }
static inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    __extension__ typedef unsigned __int128 wide;
    return (unsigned long long)((wide)a * b >> 64);
}
static inline int __float_as_int(float x) { return emulation::bits_as<int>(x); }
static inline unsigned __float_as_uint(float x) { return emulation::bits_as<unsigned>(x); }
static inline float __int_as_float(int x) { return emulation::bits_as<float>(x); }
static inline float __uint_as_float(unsigned x) { return emulation::bits_as<float>(x); }
static inline long long __double_as_longlong(double x) { return emulation::bits_as<long long>(x); }
static inline double __longlong_as_double(long long x) { return emulation::bits_as<double>(x); }

static inline float __fdividef(float a, float b) { return a / b; }
/* The C library has functions of these names, for itself. */
#define __expf expf
#define __logf logf
#define __log2f log2f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
/* Never contracted with an addition. */
static inline float __fmul_rn(float a, float b) {
    volatile float product = a * b;
    return product;
}
static inline float __fadd_rn(float a, float b) {
    volatile float sum = a + b;
    return sum;
}
static inline float rsqrtf(float x) { return 1.0F / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }

#define EMULATION_MIN_MAX(type) \
    static inline type min(type a, type b) { return b < a ? b : a; } \
    static inline type max(type a, type b) { return a < b ? b : a; }
EMULATION_MIN_MAX(int)
EMULATION_MIN_MAX(unsigned)
EMULATION_MIN_MAX(long)
EMULATION_MIN_MAX(unsigned long)
EMULATION_MIN_MAX(long long)
EMULATION_MIN_MAX(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

template <class T> T __ldg(const T *at) { return *at; }
template <class T> T __ldcs(const T *at) { return *at; }
template <class T> void __stcs(T *at, T value) { *at = value; }
static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* Of whole numbers alone: a sum of floats would depend on the order of threads. */
#define EMULATION_ATOMIC(type) \
    static inline type atomicAdd(type *at, type x) { return __atomic_fetch_add(at, x, __ATOMIC_RELAXED); } \
    static inline type atomicExch(type *at, type x) { return __atomic_exchange_n(at, x, __ATOMIC_RELAXED); } \
    static inline type atomicCAS(type *at, type expected, type x) { \
        __atomic_compare_exchange_n(at, &expected, x, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); \
        return expected; \
    } \
    static inline type atomicMax(type *at, type x) { \
        type was = __atomic_load_n(at, __ATOMIC_RELAXED); \
        while (was < x && !__atomic_compare_exchange_n(at, &was, x, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {} \
        return was; \
    } \
    static inline type atomicMin(type *at, type x) { \
        type was = __atomic_load_n(at, __ATOMIC_RELAXED); \
        while (x < was && !__atomic_compare_exchange_n(at, &was, x, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {} \
        return was; \
    }
EMULATION_ATOMIC(int)
EMULATION_ATOMIC(unsigned)
EMULATION_ATOMIC(unsigned long long)
static inline int atomicOr(int *at, int x) { return __atomic_fetch_or(at, x, __ATOMIC_RELAXED); }
static inline unsigned atomicOr(unsigned *at, unsigned x) { return __atomic_fetch_or(at, x, __ATOMIC_RELAXED); }

#endif
