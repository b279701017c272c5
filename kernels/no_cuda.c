/* In place of kernels/cuda where the program is built without CUDA. */
#include "kernels/ops.h"

int ops_cuda_devices(const char **reason) {
    *reason = "built without CUDA";
    return 0;
}

uint64_t ops_cuda_identity(int index) {
    (void)index;
    return 0;
}

enum status ops_init_cuda(int index, enum precision precision) {
    (void)precision;
    return status_fail(STATUS_INTERNAL, "GPU %d: built without CUDA", index);
}

const char *ops_cuda_description(void) { return ""; }
