/* A program built without NCCL. */
#include "comm/comm.h"

enum status comm_use_nccl(struct comm *world) {
    return comm_agree(world, status_fail(STATUS_INTERNAL, "built without NCCL"));
}

const char *comm_nccl_version(void) { return ""; }
