/* The plane over NCCL: the device's memory goes straight to the peers' devices. The host transport serves to meet, and
 * to agree. Communicators block: one that does not starts a thread for every group of calls. In exchange nothing is
 * left for them to wait for but the GPU: peers meet before each communicator is made, and all connections are made
 * then. */
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "comm/comm.h"
#include "comm/watch.h"

/* One communicator per group of more than one rank; all that live, for those who look after them. */
struct group {
    ncclComm_t handle; /* NULL: one rank */
    const char *const *name;
    struct group *next;
};
static struct group *groups;
static log_fatal_handler *end_the_job;

static void check(ncclResult_t code, const char *call, ncclComm_t handle) {
    if (code == ncclSuccess) return;
    const char *what = ncclGetErrorString(code), *more = ncclGetLastError(handle);
    if (code == ncclRemoteError) watch_lost("%s: %s (%s)", call, what, more);
    FATAL("%s: %s (%s)", call, what, more);
}
#define NCCL(handle, call) check(nccl##call, "nccl" #call, handle)

static void check_cuda(cudaError_t code, const char *call) {
    if (code != cudaSuccess) FATAL("%s: %s", call, cudaGetErrorString(code));
}

static cudaStream_t stream_of(enum device_queue queue) { return (cudaStream_t)device->stream(queue); }

static struct group *group_of(const struct comm *comm) { return comm->plane_own; }

static void nccl_allreduce(struct comm *comm, enum device_queue queue, void *data, int64_t count, enum comm_type type) {
    ncclComm_t handle = group_of(comm)->handle;
    ncclDataType_t number = type == COMM_DOUBLE || sizeof(real) == sizeof(double) ? ncclDouble : ncclFloat;
    if (!handle) return;
    watch_enter();
    NCCL(handle, AllReduce(data, data, (size_t)count, number, ncclSum, handle, stream_of(queue)));
    watch_done();
}

/* Blocks of this rank itself: those that follow each other on both sides go at once. */
static void copy_own(const struct comm *comm, enum device_queue queue, char *out, const char *in, int64_t row_bytes,
                     const struct comm_blocks *receive, const struct comm_blocks *send) {
    int to = 0, from = 0, blocks = send->per_peer[comm->rank];
    for (int p = 0; p < comm->rank; ++p) to += receive->per_peer[p], from += send->per_peer[p];
    CHECK(receive->per_peer[comm->rank] == blocks);
    for (int i = 0; i < blocks;) {
        int64_t to_row = receive->offset[to + i], from_row = send->offset[from + i], rows = 0;
        for (; i < blocks && receive->offset[to + i] == to_row + rows && send->offset[from + i] == from_row + rows;
             ++i) {
            CHECK(receive->count[to + i] == send->count[from + i] && send->count[from + i] >= 0);
            rows += send->count[from + i];
        }
        if (rows)
            check_cuda(cudaMemcpyAsync(out + to_row * row_bytes, in + from_row * row_bytes, (size_t)(rows * row_bytes),
                                       cudaMemcpyDeviceToDevice, stream_of(queue)),
                       "cudaMemcpyAsync");
    }
}

/* One message per block: a sender cannot know which blocks are neighbours at their receiver. */
static void nccl_exchange_rows(struct comm *comm, enum device_queue queue, void *out, const void *in, int64_t row_bytes,
                               const struct comm_blocks *receive, const struct comm_blocks *send) {
    ncclComm_t handle = group_of(comm)->handle;
    cudaStream_t stream = stream_of(queue);
    copy_own(comm, queue, out, in, row_bytes, receive, send);
    if (!handle) return;
    watch_enter();
    NCCL(handle, GroupStart());
    for (int p = 0, to = 0, from = 0; p < comm->size; ++p) {
        int to_end = to + receive->per_peer[p], from_end = from + send->per_peer[p];
        for (; from < from_end; ++from)
            if (p != comm->rank && send->count[from])
                NCCL(handle, Send((const char *)in + send->offset[from] * row_bytes,
                                  (size_t)(send->count[from] * row_bytes), ncclUint8, p, handle, stream));
        for (; to < to_end; ++to)
            if (p != comm->rank && receive->count[to])
                NCCL(handle, Recv((char *)out + receive->offset[to] * row_bytes,
                                  (size_t)(receive->count[to] * row_bytes), ncclUint8, p, handle, stream));
    }
    NCCL(handle, GroupEnd());
    watch_done();
}

/* What NCCL does when it meets a kind of exchange, a peer or a stream for the first time is done here, while there is
 * memory. */
static void warm_up(struct comm *comm) {
    enum { NUMBERS = 16 }; /* for each rank */
    size_t n = (size_t)comm->size, bytes = n * NUMBERS * sizeof(float);
    int *ones = calloc(n, sizeof *ones);
    int64_t *numbers = calloc(2 * n, sizeof *numbers);
    char *in = device->allocate(bytes), *out = device->allocate(bytes);
    if (!ones || !numbers || !in || !out) FATAL("out of memory for the first exchange of NCCL");
    for (size_t p = 0; p < n; ++p) ones[p] = 1, numbers[p] = (int64_t)p, numbers[n + p] = 1;
    const struct comm_blocks blocks = {ones, numbers, numbers + n};
    device->set(in, 0, bytes);
    struct device_mark set = device->mark(QUEUE_COMPUTE);
    for (int i = 0; i < DEVICE_QUEUES; ++i) {
        enum device_queue queue = (enum device_queue)i;
        device->await(queue, set);
        watch_note(comm, "first sum", (int64_t)bytes);
        nccl_allreduce(comm, queue, in, (int64_t)(bytes / sizeof(real)), COMM_REAL);
        watch_note(comm, "first exchange of rows", (int64_t)bytes);
        nccl_exchange_rows(comm, queue, out, in, NUMBERS * (int64_t)sizeof(float), &blocks, &blocks);
        device->finish(device->mark(queue));
    }
    device->release(in, bytes);
    device->release(out, bytes);
    free(ones);
    free(numbers);
}

static const struct comm_plane nccl;

static void add_group(struct comm *comm, ncclComm_t handle) {
    struct group *group = malloc(sizeof *group);
    if (!group) FATAL("out of memory");
    *group = (struct group){handle, &comm->name, groups};
    groups = group;
    comm->plane_own = group;
    comm->plane = &nccl;
    if (handle) warm_up(comm);
}

static void nccl_split(struct comm *comm, struct comm *part, int color) {
    ncclComm_t handle = group_of(comm)->handle, own = NULL;
    CHECK(color >= 0);
    if (handle) {
        watch_note(comm, "split of NCCL's communicator", -1);
        watch_meet(comm);
        NCCL(handle, CommSplit(handle, part->size > 1 ? color : NCCL_SPLIT_NOCOLOR, comm->rank, &own, NULL));
        watch_done();
    }
    add_group(part, own);
}

static void nccl_free(struct comm *comm) {
    struct group *group = group_of(comm), **at = &groups;
    while (*at != group) at = &(*at)->next;
    device_finish_all();
    *at = group->next;
    watch_note(comm, "the end of NCCL's communicator", -1);
    watch_enter();
    if (group->handle) NCCL(group->handle, CommDestroy(group->handle));
    watch_done();
    free(group);
}

static const struct comm_plane nccl = {
    .name = "nccl",
    .allreduce = nccl_allreduce,
    .exchange_rows = nccl_exchange_rows,
    .split = nccl_split,
    .free = nccl_free,
};

/* What a communicator has found out by itself: a connection lost, a peer that gave up. */
static void look_for_errors(void) {
    for (const struct group *g = groups; g; g = g->next) {
        ncclResult_t state = ncclSuccess;
        if (!g->handle) continue;
        NCCL(g->handle, CommGetAsyncError(g->handle, &state));
        if (state != ncclSuccess && state != ncclInProgress)
            watch_lost("NCCL in %s: %s (%s)", *g->name, ncclGetErrorString(state), ncclGetLastError(g->handle));
    }
}

/* Frees the GPU of what waits for a lost peer, in bounded time: NCCL itself may hang by now. */
static void abandon(enum status status) {
    if (status == STATUS_PEER) {
        watch_ending(status);
        for (struct group *g = groups; g; g = g->next)
            if (g->handle) ncclCommAbort(g->handle);
    }
    if (end_the_job) end_the_job(status);
}

/* The only step that may fail for good reasons: two ranks on one GPU, a network that NCCL cannot use. */
static enum status begin(struct comm *world, ncclComm_t *handle) {
    struct {
        ncclUniqueId id;
        int32_t ok;
    } root = {.ok = 1};
    if (world->size == 1) return STATUS_OK;
    ncclResult_t code = world->rank == 0 ? ncclGetUniqueId(&root.id) : ncclSuccess;
    root.ok = code == ncclSuccess;
    comm_broadcast(world, &root, sizeof root, 0);
    if (!root.ok) return status_fail(STATUS_INTERNAL, "ncclGetUniqueId: %s", ncclGetErrorString(code));
    watch_note(world, "start of NCCL", -1);
    watch_meet(world);
    code = ncclCommInitRank(handle, world->size, root.id, world->rank);
    watch_done();
    if (code == ncclSuccess) return STATUS_OK;
    return status_fail(STATUS_INTERNAL, "ncclCommInitRank: %s (%s)", ncclGetErrorString(code), ncclGetLastError(NULL));
}

enum status comm_use_nccl(struct comm *world) {
    ncclComm_t handle = NULL;
    setenv("NCCL_RUNTIME_CONNECT", "0", 0); /* connects all algorithms at once, not when their size first comes */
    setenv("NCCL_NVLS_ENABLE", "0", 0);     /* sums in the switch have other bits in every run */
    /* Rows and gradients are on their way at once, over several communicators: their kernels start in the host's order
     * on every rank, or they could wait for each other. */
    setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);
    watch_look(look_for_errors);
    TRY(comm_agree(world, device->is_host ? status_fail(STATUS_INTERNAL, "NCCL needs a GPU") : STATUS_OK));
    TRY(comm_agree(world, begin(world, &handle)));
    end_the_job = log_on_fatal(abandon);
    add_group(world, handle);
    return STATUS_OK;
}

const char *comm_nccl_version(void) {
    static char text[32];
    int version = 0;
    ncclGetVersion(&version);
    snprintf(text, sizeof text, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    return text;
}
