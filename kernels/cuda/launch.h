/* How kernels are declared and launched, so that the same sources are compiled by nvcc, or by a C++ compiler whose
 * emulation of a GPU runs them (tests/emulation). What that asks of a kernel: no early return where there are barriers;
 * shuffle masks name the lanes that take part, all 32 of a warp; no inline assembly, no library of device code. */
#ifndef VQMOE_LAUNCH_H
#define VQMOE_LAUNCH_H

#ifdef __CUDACC__
/* SHARED(float, partial, [32]); one array of a block. DYN_SHARED(float, row): the bytes given to LAUNCH_SHARED. */
#define SHARED(type, name, size) __shared__ type name size
#define DYN_SHARED(type, name) \
    extern __shared__ __align__(16) unsigned char name##_bytes[]; \
    type *name = reinterpret_cast<type *>(name##_bytes)
#define LAUNCH_ON(stream, kernel, blocks, threads, bytes, ...) \
    (kernel<<<(blocks), (threads), (bytes), (stream)>>>(__VA_ARGS__))
#else
#include "emulation/kernel.h"
#endif

/* LAUNCH((kernel), blocks, threads, arguments...) on QUEUE_COMPUTE; the name of a template goes in parentheses. */
#define LAUNCH_SHARED(kernel, blocks, threads, bytes, ...) \
    do { \
        LAUNCH_ON(cuda.stream[QUEUE_COMPUTE], kernel, blocks, threads, bytes, __VA_ARGS__); \
        CUDA(cudaGetLastError()); \
    } while (0)
#define LAUNCH(kernel, blocks, threads, ...) LAUNCH_SHARED(kernel, blocks, threads, 0, __VA_ARGS__)

#endif
