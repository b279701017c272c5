#include <stdlib.h>

#include "tests/ops/check.h"

static void *take_bytes(size_t bytes) { return malloc(bytes); }

const struct test_device test_device = {
    .threads = true,
    .tolerance = sizeof(real) == sizeof(double) ? 1e-12 : 1e-5,
    .tolerance_gradient = sizeof(real) == sizeof(double) ? 1e-6 : 2e-5,
    .start = ops_init_cpu,
    .take = take_bytes,
    .give = free,
};
