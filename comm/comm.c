#include "comm/comm.h"

#include <stdlib.h>

#include "base/fault.h"
#include "base/log.h"
#include "comm/watch.h"

enum { BUCKET = 1 << 20, PLANE_BUCKET = 1 << 24 }; /* elements: 4 and 64 MiB of floats */

static int64_t bytes_of(enum comm_type type) {
    return type == COMM_REAL ? sizeof(real) : type == COMM_DOUBLE ? sizeof(double) : sizeof(int64_t);
}

static void enter(struct comm *comm, const char *operation, int64_t bytes) {
    watch_note(comm, operation, bytes);
    watch_meet(comm);
    FAULT_POINT("collective");
}

void comm_limit(double seconds) { watch_limit(seconds); }

void comm_allreduce(struct comm *comm, void *data, int64_t count, enum comm_type type, enum comm_reduction reduction) {
    CHECK(count >= 0);
    if (count == 0) return;
    enter(comm, "all-reduce", count * bytes_of(type));
    comm->ops->allreduce(comm, data, count, type, reduction);
    watch_done();
}

void comm_sum_here(struct comm *comm, enum device_queue queue, void *data, int64_t count, enum comm_type type) {
    int64_t bytes = bytes_of(type);
    CHECK(count >= 0 && type != COMM_INT64);
    if (comm->size == 1) return;
    int64_t bucket = comm->plane ? PLANE_BUCKET : BUCKET;
    for (int64_t at = 0; at < count; at += bucket) {
        char *from = (char *)data + at * bytes;
        int64_t n = count - at < bucket ? count - at : bucket;
        if (!comm->plane) {
            CHECK(device->is_host);
            comm_allreduce(comm, from, n, type, COMM_SUM);
            continue;
        }
        watch_note(comm, "sum", n * bytes);
        comm->plane->allreduce(comm, queue, from, n, type);
    }
}

void comm_allgather(struct comm *comm, int64_t *out, const int64_t *in, int64_t count) {
    enter(comm, "all-gather", count * (int64_t)sizeof *in);
    comm->ops->allgather(comm, out, in, count);
    watch_done();
}

void comm_broadcast(struct comm *comm, void *data, int64_t bytes, int root) {
    enter(comm, "broadcast", comm->rank == root ? bytes : 0);
    comm->ops->broadcast(comm, data, bytes, root);
    watch_done();
}

void comm_exchange_rows(struct comm *comm, enum device_queue queue, void *out, const void *in, int64_t row_bytes,
                        const struct comm_blocks *receive, const struct comm_blocks *send) {
    if (!comm->sent && !(comm->sent = calloc((size_t)comm->size, sizeof *comm->sent))) FATAL("out of memory");
    int64_t away = 0;
    for (int p = 0, i = 0; p < comm->size; ++p)
        for (int end = i + send->per_peer[p]; i < end; ++i) {
            comm->sent[p] += send->count[i] * row_bytes;
            if (p != comm->rank) away += send->count[i] * row_bytes;
        }
    if (comm->plane) {
        watch_note(comm, "exchange of rows", away);
        comm->plane->exchange_rows(comm, queue, out, in, row_bytes, receive, send);
    } else {
        CHECK(device->is_host);
        enter(comm, "exchange of rows", away);
        comm->ops->exchange_rows(comm, out, in, row_bytes, receive, send);
        watch_done();
    }
}

void comm_barrier(struct comm *comm) {
    enter(comm, "barrier", -1);
    comm->ops->barrier(comm);
    watch_done();
}

struct comm *comm_split(struct comm *comm, int color) {
    enter(comm, "split", -1);
    struct comm *part = comm->ops->split(comm, color);
    watch_done();
    if (comm->plane) comm->plane->split(comm, part, color);
    return part;
}

struct comm *comm_split_node(struct comm *comm) {
    enter(comm, "split by node", -1);
    struct comm *part = comm->ops->split_node(comm);
    watch_done();
    return part;
}

void comm_free(struct comm *comm) {
    if (!comm) return;
    if (comm->plane) comm->plane->free(comm);
    free(comm->sent);
    comm->ops->free(comm);
}

enum status comm_agree(struct comm *comm, enum status status) {
    int64_t first = status == STATUS_OK ? comm->size : comm->rank;
    comm_allreduce(comm, &first, 1, COMM_INT64, COMM_MIN);
    if (first == comm->size) return STATUS_OK;
    int64_t agreed = status;
    comm_broadcast(comm, &agreed, sizeof agreed, (int)first);
    if (comm->rank != first) status_clear();
    return (enum status)agreed;
}
