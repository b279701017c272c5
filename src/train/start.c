#include "train/start.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "kernels/ops.h"
#include "train/threads.h"

static char description[512];

/* GPUs of this node, and who shares one. */
struct node {
    int gpus;           /* that this rank sees */
    const char *reason; /* where there are none */
    int index;          /* this rank's */
    bool shared;        /* some rank of the world has a GPU that is another's too */
    int without;        /* the lowest rank of the world without a GPU; size: none */
    int ranks;          /* on this node */
};

/* By its rank on the node; a launcher that shows each rank one GPU of its own is seen by the GPUs' identities. */
static struct node node_of(struct comm *world) {
    struct comm *node = comm_split_node(world);
    struct node n = {.ranks = node->size};
    n.gpus = ops_cuda_devices(&n.reason);
    n.index = n.gpus ? node->rank % n.gpus : 0;
    int64_t *all = malloc((size_t)node->size * sizeof *all), mine = n.gpus ? (int64_t)ops_cuda_identity(n.index) : 0;
    if (!all) FATAL("out of memory");
    comm_allgather(node, all, &mine, 1);
    int64_t same = 0, without = n.gpus ? world->size : world->rank;
    for (int r = 0; r < node->size; ++r) same += r != node->rank && all[r] == mine && mine;
    free(all);
    comm_free(node);
    comm_allreduce(world, &same, 1, COMM_INT64, COMM_MAX);
    comm_allreduce(world, &without, 1, COMM_INT64, COMM_MIN);
    n.shared = same > 0;
    n.without = (int)without;
    return n;
}

static enum status check_cpu(const struct config *config, const struct comm *world) {
    if (config->parallel.comm == COMM_NCCL)
        return status_fail(STATUS_CONFIG, "parallel.comm: expected auto, self or mpi on the CPU, found nccl");
    if (config->parallel.comm == COMM_SELF && world->size > 1)
        return status_fail(STATUS_CONFIG, "parallel.comm: expected auto or mpi on %d ranks, found self", world->size);
    return STATUS_OK;
}

static enum status check_gpus(const struct config *config, const struct comm *world, const struct node *node) {
    if (node->shared && !config->parallel.share_gpus)
        return status_fail(STATUS_CONFIG,
                           "device: expected a GPU for each rank of a node, found %d for %d: start fewer ranks, or let "
                           "them share with parallel.share_gpus: true",
                           node->gpus, node->ranks);
    if (node->shared && config->parallel.comm == COMM_NCCL)
        return status_fail(STATUS_CONFIG, "parallel.comm: expected mpi where ranks share a GPU, found nccl");
    if (config->parallel.comm == COMM_SELF && world->size > 1)
        return status_fail(STATUS_CONFIG, "parallel.comm: expected auto, mpi or nccl on %d ranks, found self",
                           world->size);
    return STATUS_OK;
}

static enum status start_gpu(const struct config *config, struct comm *world, const struct node *node,
                             enum precision precision) {
    enum status status = check_gpus(config, world, node);
    if (!status) status = ops_init_cuda(node->index, precision);
    if ((status = comm_agree(world, status))) return status;
    if (world->size == 1) return STATUS_OK;
    if (config->parallel.comm != COMM_MPI && !node->shared) return comm_use_nccl(world);
    comm_use_staging(world);
    return STATUS_OK;
}

enum status start_operations(const struct config *config, struct comm *world) {
    enum precision precision = config->precision == PRECISION_KIND_BF16 ? PRECISION_BF16 : PRECISION_FP32;
    struct node node = {.without = 0};
    enum status status = STATUS_OK;
    comm_limit(config->parallel.timeout_s);
    if (precision == PRECISION_BF16 && sizeof(real) != sizeof(float))
        status = status_fail(STATUS_CONFIG, "precision: expected fp32 in a build with REAL=double, found bf16");
    if ((status = comm_agree(world, status))) return status;
    ops_init_cpu(threads_choose(world, config->parallel.threads), precision);
    if (config->device != DEVICE_CPU) node = node_of(world);
    bool gpu = config->device != DEVICE_CPU && node.without == world->size;
    if (!gpu && config->device == DEVICE_CUDA)
        status = world->rank == node.without ? status_fail(STATUS_CONFIG,
                                                           "device: expected auto or cpu, found cuda; rank %d has no "
                                                           "GPU: %s",
                                                           world->rank, node.reason)
                                             : STATUS_OK;
    else
        status = gpu ? start_gpu(config, world, &node, precision) : check_cpu(config, world);
    if ((status = comm_agree(world, status))) return status;
    if (gpu)
        snprintf(description, sizeof description, "device: cuda (%s), %s%s%s", ops_cuda_description(),
                 precision ? "bf16" : "fp32", world->plane ? ", rows by " : "", world->plane ? world->plane->name : "");
    else
        snprintf(description, sizeof description, "device: cpu (%s), %s, %s",
                 config->device == DEVICE_CPU ? "as configured" : node.reason, ops_library(),
                 precision ? "bf16" : "fp32");
    return STATUS_OK;
}

const char *start_description(void) { return description; }
