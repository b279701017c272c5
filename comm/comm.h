/* A group of ranks, and the few ways in which they exchange data. Host memory travels by a transport (one process
 * alone, or MPI), the device's memory by a plane on top of it: NCCL, or through pinned host memory; where the device's
 * memory is the host's there is none. The model holds a `struct comm *` and never notices which. Failures end the job
 * (log.h, FATAL): no rank can go on alone.
 *
 * Every function is collective over its group: all ranks call it, in the same order, also with nothing to send. */
#ifndef VQMOE_COMM_H
#define VQMOE_COMM_H

#include <stdint.h>

#include "base/device.h"
#include "base/real.h"
#include "base/status.h"

enum comm_type { COMM_REAL, COMM_DOUBLE, COMM_INT64 };
enum comm_reduction { COMM_SUM, COMM_MIN, COMM_MAX };

struct comm;

/* Which rows go to or come from each peer: blocks of contiguous rows, the same number of blocks for every peer in one
 * direction. Block i of peer p: rows [offset, offset + count) of the local buffer, at index p * blocks + i. Block i of
 * a sender meets block i of the receiver, in the same order with the same count. Empty blocks are fine. */
struct comm_blocks {
    int *per_peer;   /* [size] number of blocks of each peer */
    int64_t *offset; /* rows; blocks of peer 0, then of peer 1, ... */
    int64_t *count;
};

struct comm_ops {
    const char *name;
    void (*allreduce)(struct comm *comm, void *data, int64_t count, enum comm_type type, enum comm_reduction reduction);
    void (*allgather)(struct comm *comm, int64_t *out /* [size, count] */, const int64_t *in /* [count] */,
                      int64_t count);
    void (*broadcast)(struct comm *comm, void *data, int64_t bytes, int root);
    void (*exchange_rows)(struct comm *comm, void *out, const void *in, int64_t row_bytes,
                          const struct comm_blocks *receive, const struct comm_blocks *send);
    void (*barrier)(struct comm *comm);
    /* Returns when all ranks of the group have called it; calls `waiting` now and then, with the seconds so far. */
    void (*meet)(struct comm *comm, void (*waiting)(double seconds));
    struct comm *(*split)(struct comm *comm, int color);
    struct comm *(*split_node)(struct comm *comm);
    void (*free)(struct comm *comm);
};

/* What is queued is done when a later mark of that queue is. */
struct comm_plane {
    const char *name; /* "nccl", "staged" */
    void (*allreduce)(struct comm *comm, enum device_queue queue, void *data, int64_t count, enum comm_type type);
    void (*exchange_rows)(struct comm *comm, enum device_queue queue, void *out, const void *in, int64_t row_bytes,
                          const struct comm_blocks *receive, const struct comm_blocks *send);
    /* part was just split from comm: gives it a plane of its own, ready to use. Collective over comm. */
    void (*split)(struct comm *comm, struct comm *part, int color);
    void (*free)(struct comm *comm);
};

struct comm {
    const struct comm_ops *ops;
    const struct comm_plane *plane; /* NULL: the device's memory is the host's */
    void *plane_own;                /* the plane's */
    const char *name;               /* for messages: "world", "part"; whoever splits it may name it */
    int rank, size;
    uint64_t id;        /* of the group, the same on all its ranks */
    int64_t operations; /* asked for so far */
    const int *members; /* [size] ranks of the world; the transport's; NULL for one process alone */
    int64_t *sent; /* [size] bytes of rows handed to comm_exchange_rows for each rank so far; NULL before the first */
};

/* One process alone. */
struct comm *comm_self_new(void);
/* Over MPI_COMM_WORLD, which must be initialised; MPI moves host memory only. Once at a time. A rank that waits for its
 * peers for longer than a limit ends the job with STATUS_PEER and says who did not come (watch.h); after comm_free of
 * the world, for which all meet, the limit holds for what is left to do, MPI_Finalize. */
struct comm *comm_mpi_new(void);
/* The limit of one wait; 600 s until it is set. */
void comm_limit(double seconds);

/* Planes for the world, and for all that is split from it later on. Both once the device is chosen, before the model is
 * there: they take what they need and exchange something once, so that nothing is left to do in a full memory.
 * Collective over the world. STATUS_INTERNAL, on all ranks: NCCL cannot be used, one rank says why. */
enum status comm_use_nccl(struct comm *world);
void comm_use_staging(struct comm *world);
/* "NCCL 2.27.7"; "" in a program built without. */
const char *comm_nccl_version(void);

/* ---- Host memory ---- */

/* Reduces in place; the same bits on every rank. */
void comm_allreduce(struct comm *comm, void *data, int64_t count, enum comm_type type, enum comm_reduction reduction);
void comm_allgather(struct comm *comm, int64_t *out, const int64_t *in, int64_t count);
void comm_broadcast(struct comm *comm, void *data, int64_t bytes, int root);
void comm_barrier(struct comm *comm);

/* ---- The device's memory: queued on `queue` (device.h), on the CPU done on return ---- */

/* Sums in place, COMM_REAL or COMM_DOUBLE; the same bits on every rank. In buckets of bounded size: no transport sees
 * more than one at once. */
void comm_sum_here(struct comm *comm, enum device_queue queue, void *data, int64_t count, enum comm_type type);
/* The all-to-all of the product: rows of row_bytes go straight from their places here to their places there. The blocks
 * are the host's. */
void comm_exchange_rows(struct comm *comm, enum device_queue queue, void *out, const void *in, int64_t row_bytes,
                        const struct comm_blocks *receive, const struct comm_blocks *send);

/* A new group of the ranks with the same color, in rank order; the caller frees it. */
struct comm *comm_split(struct comm *comm, int color);
/* A new group of the ranks that share this node's memory, for host memory alone; the caller frees it. */
struct comm *comm_split_node(struct comm *comm);
void comm_free(struct comm *comm); /* NULL is fine */

/* What all ranks agree on after a step that each may fail: the status of the first failed rank, or STATUS_OK. That rank
 * alone keeps its message. */
enum status comm_agree(struct comm *comm, enum status status);

/* What threads may do beside each other by the MPI that runs: "one calls MPI" or the like. */
const char *comm_thread_level(void);
/* "Open MPI v4.1.4" */
const char *comm_library_version(void);

#endif
