/* Every call is messages between pairs of ranks, none of which blocks. Sums are made by each rank from what all gave,
 * in the order of ranks: the same bits everywhere. */
#include "emulation/nccl_work.h"

#include <cuda_bf16.h>
#include <limits.h>
#include <string.h>

namespace emulation {

size_t nccl_size(ncclDataType_t type) {
    switch (type) {
    case ncclInt8:
    case ncclUint8: return 1;
    case ncclFloat16:
    case ncclBfloat16: return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32: return 4;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64: return 8;
    default: die("NCCL: data type %d is not emulated", type);
    }
}

/* Of communicators that were aborted: MPI may still write there. */
static std::vector<std::vector<nccl_call> *> &abandoned = *new std::vector<std::vector<nccl_call> *>;

static size_t bytes_of(const nccl_call &c) { return c.count * nccl_size(c.type); }

static void mpi(int code, const char *what) {
    if (code != MPI_SUCCESS) die("NCCL: %s has failed", what);
}

static void check_memory(const void *at, size_t bytes, const char *what) {
    if (!device_reaches(at, bytes)) die("NCCL: %s of %zu bytes at %p does not lie in device memory", what, bytes, at);
}

static void send(nccl_call &c, int peer, const void *at) {
    size_t bytes = bytes_of(c);
    check_memory(at, bytes, "what is sent");
    const char *from = (const char *)at;
    c.sent.push_back(
        {peer, std::vector<char>(from, from + bytes), MPI_REQUEST_NULL, MPI_MESSAGE_NULL, message::WAITING});
}

static void receive(nccl_call &c, int peer) {
    c.received.push_back({peer, std::vector<char>(bytes_of(c)), MPI_REQUEST_NULL, MPI_MESSAGE_NULL, message::WAITING});
}

/* Which messages a call is. */
static void plan(nccl_call &c) {
    size_t bytes = bytes_of(c);
    for (int peer = 0; peer < c.comm->size; peer++) {
        bool mine = peer == c.peer;
        if (c.kind == NCCL_SEND && mine) send(c, peer, c.in);
        if (c.kind == NCCL_RECEIVE && mine) receive(c, peer);
        if (c.kind == NCCL_ALLREDUCE || c.kind == NCCL_ALLGATHER) send(c, peer, c.in), receive(c, peer);
        if (c.kind == NCCL_REDUCE_SCATTER) send(c, peer, (const char *)c.in + (size_t)peer * bytes), receive(c, peer);
        if (c.kind == NCCL_BROADCAST && c.peer == c.comm->rank) send(c, peer, c.in);
        if (c.kind == NCCL_BROADCAST && mine) receive(c, peer);
    }
}

/* A call's messages to its own rank go straight there; sends and receives meet in order within the group. */
static void exchange_with_self(std::vector<nccl_call> &calls) {
    for (nccl_call &to : calls) {
        for (message &wanted : to.received) {
            if (wanted.peer != to.comm->rank) continue;
            for (nccl_call &from : calls) {
                if (from.comm != to.comm || from.tag != to.tag) continue;
                for (message &given : from.sent) {
                    if (wanted.state == message::DONE || given.peer != to.comm->rank || given.state == message::DONE)
                        continue;
                    if (given.bytes.size() != wanted.bytes.size())
                        die("NCCL: rank %d sends itself %zu bytes and receives %zu", to.comm->rank, given.bytes.size(),
                            wanted.bytes.size());
                    wanted.bytes = given.bytes;
                    wanted.state = given.state = message::DONE;
                }
            }
            if (wanted.state != message::DONE)
                die("NCCL: rank %d receives from itself what this group does not send", to.comm->rank);
        }
    }
}

static void start(std::vector<nccl_call> &calls) {
    for (nccl_call &c : calls) plan(c);
    exchange_with_self(calls);
    for (nccl_call &c : calls) {
        for (message &m : c.sent) {
            if (m.state == message::DONE) continue;
            if (m.peer == c.comm->rank) die("NCCL: rank %d sends itself what this group does not receive", m.peer);
            if (m.bytes.size() > INT_MAX) die("NCCL: a message of %zu bytes is beyond the emulation", m.bytes.size());
            mpi(MPI_Isend(m.bytes.data(), (int)m.bytes.size(), MPI_BYTE, m.peer, c.tag, c.comm->mpi, &m.request),
                "MPI_Isend");
            m.state = message::MOVING;
        }
    }
}

static bool arrived(message &m) {
    int done = 0;
    if (m.state != message::MOVING) return m.state == message::DONE;
    mpi(MPI_Test(&m.request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done) m.state = message::DONE;
    return done != 0;
}

/* Takes the next message of the peer, whose size must be the expected one. */
static void match(nccl_call &c, message &m) {
    int found = 0, bytes;
    MPI_Status status;
    mpi(MPI_Improbe(m.peer, c.tag, c.comm->mpi, &found, &m.matched, &status), "MPI_Improbe");
    if (!found) return;
    mpi(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
    if ((size_t)bytes != m.bytes.size())
        die("NCCL: rank %d receives %zu bytes from rank %d, which sends %d", c.comm->rank, m.bytes.size(), m.peer,
            bytes);
    mpi(MPI_Imrecv(m.bytes.data(), bytes, MPI_BYTE, &m.matched, &m.request), "MPI_Imrecv");
    m.state = message::MOVING;
}

/* An earlier call of this group waits for the same rank's messages of the same tag. */
static bool is_behind(const std::vector<nccl_call> &calls, const nccl_call &c, const message &m) {
    for (const nccl_call &earlier : calls) {
        if (&earlier == &c) return false;
        if (earlier.comm != c.comm || earlier.tag != c.tag) continue;
        for (const message &other : earlier.received)
            if (other.peer == m.peer && other.state == message::WAITING) return true;
    }
    return false;
}

template <class T> static T reduced(T a, T b, ncclRedOp_t reduction) {
    switch (reduction) {
    case ncclSum: return a + b;
    case ncclMin: return b < a ? b : a;
    case ncclMax: return a < b ? b : a;
    default: die("NCCL: reduction %d is not emulated", reduction);
    }
}

template <class T> static void reduce_as(const nccl_call &c) {
    T *out = (T *)c.out;
    for (size_t i = 0; i < c.count; i++) {
        T sum = ((const T *)c.received[0].bytes.data())[i];
        for (size_t rank = 1; rank < c.received.size(); rank++)
            sum = reduced(sum, ((const T *)c.received[rank].bytes.data())[i], c.reduction);
        out[i] = sum;
    }
}

static void reduce_bf16(const nccl_call &c) {
    for (size_t i = 0; i < c.count; i++) {
        float sum = __bfloat162float(((const __nv_bfloat16 *)c.received[0].bytes.data())[i]);
        for (size_t rank = 1; rank < c.received.size(); rank++)
            sum =
                reduced(sum, __bfloat162float(((const __nv_bfloat16 *)c.received[rank].bytes.data())[i]), c.reduction);
        ((__nv_bfloat16 *)c.out)[i] = __float2bfloat16_rn(sum);
    }
}

static void reduce(const nccl_call &c) {
    switch (c.type) {
    case ncclFloat32: return reduce_as<float>(c);
    case ncclFloat64: return reduce_as<double>(c);
    case ncclInt32: return reduce_as<int32_t>(c);
    case ncclInt64: return reduce_as<int64_t>(c);
    case ncclBfloat16: return reduce_bf16(c);
    default: die("NCCL: a reduction of data type %d is not emulated", c.type);
    }
}

static void finish(const nccl_call &c) {
    size_t bytes = bytes_of(c);
    if (c.kind == NCCL_SEND) return;
    check_memory(c.out, bytes * (c.kind == NCCL_ALLGATHER ? c.received.size() : 1), "what is received");
    if (c.kind == NCCL_ALLREDUCE || c.kind == NCCL_REDUCE_SCATTER) return reduce(c);
    for (size_t i = 0; i < c.received.size(); i++)
        if (bytes > 0) memcpy((char *)c.out + i * bytes, c.received[i].bytes.data(), bytes);
}

bool nccl_work::advance() {
    bool all = true;
    for (const nccl_call &c : *calls)
        if (c.comm->aborted) {
            abandoned.push_back(calls);
            return true;
        }
    if (broken) return false;
    if (!started) start(*calls);
    started = true;
    for (nccl_call &c : *calls) {
        for (message &m : c.sent) all &= arrived(m);
        for (message &m : c.received) {
            if (m.state == message::WAITING && !is_behind(*calls, c, m)) match(c, m);
            all &= arrived(m);
        }
    }
    if (!all) return false;
    for (const nccl_call &c : *calls) finish(c);
    delete calls;
    return true;
}

} // namespace emulation
