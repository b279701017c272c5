/* A GPU, real or emulated; memory that it shares with the host. */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/ops/check.h"

enum { SKIPPED = 77 }; /* as tests.cmake tells ctest */

static void start(int threads, enum precision precision) {
    (void)threads;
    static bool started;
    const char *reason;
    if (started) return;
    if (!ops_cuda_devices(&reason)) {
        printf("no GPU: %s\n", reason);
        exit(SKIPPED);
    }
    ops_init_cpu(1, precision);
    if (ops_init_cuda(0, precision) != STATUS_OK) {
        fprintf(stderr, "%s\n", status_message());
        exit(1);
    }
    started = true;
}

static void *take_bytes(size_t bytes) {
    void *memory;
    return cudaMallocManaged(&memory, bytes, cudaMemAttachGlobal) == cudaSuccess ? memory : NULL;
}

static void give(void *memory) { cudaFree(memory); }

const struct test_device test_device = {
    .tolerance = 2e-5,
    .tolerance_gradient = 2e-5,
    .start = start,
    .take = take_bytes,
    .give = give,
};
