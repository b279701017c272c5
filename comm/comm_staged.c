/* The plane without NCCL: the device's memory goes through pinned host memory and the host transport. The host waits
 * for each exchange; what comes in is queued for the device, before whatever is queued on the exchange's queue from
 * then on. It moves no row twice: blocks are packed as they are fetched, and unpacked as they are uploaded. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "comm/comm.h"
#include "comm/watch.h"

/* Pinned memory, shared by all groups: the host is in one exchange at a time. It grows and is kept. */
struct buffer {
    char *data;
    size_t bytes;
};
static struct buffer outgoing, incoming;
static int users; /* groups */

static void wait_for_device(void) { device->finish(device->mark(QUEUE_COMPUTE)); }

static char *grow(struct buffer *buffer, int64_t bytes) {
    enum { LEAST = 1 << 20 };
    size_t wanted = (size_t)bytes + (size_t)bytes / 4;
    if ((size_t)bytes <= buffer->bytes) return buffer->data;
    if (wanted < LEAST) wanted = LEAST;
    if (buffer->data) {
        wait_for_device();
        device->release_pinned(buffer->data, buffer->bytes);
    }
    buffer->data = device->allocate_pinned(wanted);
    if (!buffer->data) FATAL("out of pinned host memory: %zu MiB to exchange rows", wanted >> 20);
    buffer->bytes = wanted;
    return buffer->data;
}

/* Fetches and uploads are QUEUE_COMPUTE's: they come after what `queue` has so far, and everything on `queue` from now
 * on after them. The host's own turn is between the two. */
static void begin(enum device_queue queue) { device->await(QUEUE_COMPUTE, device->mark(queue)); }

static void end(enum device_queue queue) { device->await(queue, device->mark(QUEUE_COMPUTE)); }

static void staged_allreduce(struct comm *comm, enum device_queue queue, void *data, int64_t count,
                             enum comm_type type) {
    int64_t bytes = count * (int64_t)(type == COMM_REAL ? sizeof(real) : sizeof(double));
    char *staged = grow(&outgoing, bytes);
    begin(queue);
    device->fetch(staged, data, (size_t)bytes);
    wait_for_device();
    watch_meet(comm);
    comm->ops->allreduce(comm, staged, count, type, COMM_SUM);
    watch_done();
    device->upload(data, staged, (size_t)bytes);
    end(queue);
}

/* Blocks of the peers, one after the other without gaps in pinned memory: one block for each peer there. */
struct packed {
    struct comm_blocks blocks; /* [size] each */
    int64_t rows;
};

static struct packed pack(const struct comm *comm, const struct comm_blocks *blocks) {
    size_t size = (size_t)comm->size;
    struct packed packed = {{malloc(size * sizeof(int)), malloc(size * sizeof(int64_t)), calloc(size, sizeof(int64_t))},
                            0};
    struct comm_blocks *b = &packed.blocks;
    if (!b->per_peer || !b->offset || !b->count) FATAL("out of memory");
    for (int p = 0, i = 0; p < comm->size; ++p) {
        b->per_peer[p] = 1;
        b->offset[p] = packed.rows;
        for (int end = i + blocks->per_peer[p]; i < end; ++i)
            if (p != comm->rank) b->count[p] += blocks->count[i];
        packed.rows += b->count[p];
    }
    return packed;
}

static void unpack(struct packed *packed) {
    free(packed->blocks.per_peer);
    free(packed->blocks.offset);
    free(packed->blocks.count);
}

/* Calls `move` for the peers' rows, in the order of the packed ones; blocks that follow each other in the device's
 * memory too go at once. */
static void for_blocks(const struct comm *comm, const struct comm_blocks *blocks, int64_t row_bytes, char *here,
                       char *packed, void (*move)(char *here, char *packed, size_t bytes)) {
    int64_t from = 0, rows = 0, at = 0; /* rows to move, from `from` here to `at` there */
    for (int p = 0, i = 0; p < comm->size; ++p)
        for (int end = i + blocks->per_peer[p]; i < end; ++i) {
            if (p == comm->rank || blocks->count[i] == 0) continue;
            if (blocks->offset[i] != from + rows) {
                if (rows) move(here + from * row_bytes, packed + at * row_bytes, (size_t)(rows * row_bytes));
                from = blocks->offset[i];
                at += rows;
                rows = 0;
            }
            rows += blocks->count[i];
        }
    if (rows) move(here + from * row_bytes, packed + at * row_bytes, (size_t)(rows * row_bytes));
}

static void fetch(char *here, char *packed, size_t bytes) { device->fetch(packed, here, bytes); }
static void upload(char *here, char *packed, size_t bytes) { device->upload(here, packed, bytes); }

/* Rows that stay on this rank never leave the device. */
static void copy_own(const struct comm *comm, char *out, const char *in, int64_t row_bytes,
                     const struct comm_blocks *receive, const struct comm_blocks *send) {
    int to = 0, from = 0;
    for (int p = 0; p < comm->rank; ++p) to += receive->per_peer[p], from += send->per_peer[p];
    CHECK(receive->per_peer[comm->rank] == send->per_peer[comm->rank]);
    for (int i = 0; i < send->per_peer[comm->rank]; ++i) {
        int64_t rows = send->count[from + i];
        CHECK(receive->count[to + i] == rows);
        if (rows)
            device->copy(out + receive->offset[to + i] * row_bytes, in + send->offset[from + i] * row_bytes,
                         (size_t)(rows * row_bytes));
    }
}

static void staged_exchange_rows(struct comm *comm, enum device_queue queue, void *out, const void *in,
                                 int64_t row_bytes, const struct comm_blocks *receive, const struct comm_blocks *send) {
    begin(queue);
    copy_own(comm, out, in, row_bytes, receive, send);
    if (comm->size > 1) {
        struct packed away = pack(comm, send), home = pack(comm, receive);
        char *outbound = grow(&outgoing, away.rows * row_bytes), *inbound = grow(&incoming, home.rows * row_bytes);
        for_blocks(comm, send, row_bytes, (char *)in, outbound, fetch);
        wait_for_device(); /* for the last upload too: nobody reads the incoming ones any more */
        watch_meet(comm);
        comm->ops->exchange_rows(comm, inbound, outbound, row_bytes, &home.blocks, &away.blocks);
        watch_done();
        for_blocks(comm, receive, row_bytes, out, inbound, upload);
        unpack(&away);
        unpack(&home);
    }
    end(queue);
}

static void staged_split(struct comm *comm, struct comm *part, int color);

static void staged_free(struct comm *comm) {
    (void)comm;
    if (--users) return;
    wait_for_device();
    if (outgoing.data) device->release_pinned(outgoing.data, outgoing.bytes);
    if (incoming.data) device->release_pinned(incoming.data, incoming.bytes);
    outgoing = incoming = (struct buffer){NULL, 0};
}

static const struct comm_plane staged = {
    .name = "staged",
    .allreduce = staged_allreduce,
    .exchange_rows = staged_exchange_rows,
    .split = staged_split,
    .free = staged_free,
};

static void staged_split(struct comm *comm, struct comm *part, int color) {
    (void)comm, (void)color;
    part->plane = &staged;
    ++users;
}

void comm_use_staging(struct comm *world) {
    world->plane = &staged;
    ++users;
}
