/* Communicators and calls of NCCL; nccl_work.cpp moves the data. */
#include <stdio.h>
#include <string.h>

#include <vector>

#include "emulation/nccl_work.h"

namespace emulation {

/* In an ncclUniqueId: whose it is, and the how many-eth. */
struct unique_id {
    int32_t world_rank, number;
};

enum { BOOTSTRAP_TAG = 20000, BOOTSTRAP_TAGS = 10000, FIRST_COLLECTIVE = 1, KINDS = 8, COLLECTIVES = 3000 };

static int group_depth, groups;
static std::vector<nccl_call> *group;
static cudaStream_t group_stream;
static std::vector<ncclComm *> &aborted = *new std::vector<ncclComm *>;

static bool mpi_runs() {
    int initialized = 0, finalized = 0;
    MPI_Initialized(&initialized);
    if (initialized) MPI_Finalized(&finalized);
    return initialized && !finalized;
}

/* Each rank tells the id's owner who it is, and learns who the others are. */
static MPI_Comm bootstrap(int size, int rank, const unique_id &id) {
    int tag = BOOTSTRAP_TAG + id.number % BOOTSTRAP_TAGS, mine;
    std::vector<int> world((size_t)size, -1);
    if (!mpi_runs()) die("NCCL: a communicator of %d ranks, and MPI does not run", size);
    MPI_Comm_rank(MPI_COMM_WORLD, &mine);
    world[(size_t)rank] = mine;
    if (mine == id.world_rank) {
        for (int i = 1; i < size; i++) {
            int who;
            MPI_Status status;
            MPI_Recv(&who, 1, MPI_INT, MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &status);
            if (who < 0 || who >= size || world[(size_t)who] >= 0)
                die("NCCL: two ranks %d in a communicator of %d", who, size);
            world[(size_t)who] = status.MPI_SOURCE;
        }
        for (int other : world)
            if (other != mine) MPI_Send(world.data(), size, MPI_INT, other, tag, MPI_COMM_WORLD);
    } else {
        MPI_Send(&rank, 1, MPI_INT, id.world_rank, tag, MPI_COMM_WORLD);
        MPI_Recv(world.data(), size, MPI_INT, id.world_rank, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    MPI_Group everybody, members;
    MPI_Comm made;
    MPI_Comm_group(MPI_COMM_WORLD, &everybody);
    MPI_Group_incl(everybody, size, world.data(), &members);
    MPI_Comm_create_group(MPI_COMM_WORLD, members, tag, &made);
    MPI_Group_free(&members);
    MPI_Group_free(&everybody);
    return made;
}

static ncclComm *new_comm(MPI_Comm mpi, int rank, int size) {
    ncclComm *comm = new ncclComm{mpi, rank, size, 0, false, ncclSuccess, 0, {nullptr, 0}};
    cudaGetDevice(&comm->device);
    return comm;
}

/* Communicators of a group, each once. */
static std::vector<ncclComm *> comms_of(const std::vector<nccl_call> &calls) {
    std::vector<ncclComm *> found;
    for (const nccl_call &c : calls) {
        bool known = false;
        for (ncclComm *comm : found) known |= comm == c.comm;
        if (!known) found.push_back(c.comm);
    }
    return found;
}

static ncclResult_t end_group() {
    std::vector<nccl_call> *calls = group;
    group = nullptr;
    if (!calls) return ncclSuccess;
    std::vector<ncclComm *> comms = comms_of(*calls);
    nccl_work *work = new nccl_work(calls);
    work->broken = ++groups == setting_number("VQMOE_EMULATION_NCCL_ERROR", 0);
    for (ncclComm *comm : comms) {
        if (work->broken) comm->error = ncclRemoteError;
        enqueue_wait(group_stream, comm->last);
    }
    enqueue(group_stream, work);
    for (ncclComm *comm : comms) comm->last = place_of(group_stream);
    return ncclSuccess;
}

static ncclResult_t call(nccl_kind kind, ncclComm *comm, const void *in, void *out, size_t count, ncclDataType_t type,
                         ncclRedOp_t reduction, int peer, cudaStream_t stream) {
    if (!comm || peer < 0 || peer >= comm->size) return ncclInvalidArgument;
    if (comm->aborted) return ncclInvalidUsage;
    if (!group) {
        group = new std::vector<nccl_call>;
        group_stream = stream;
    }
    if (stream != group_stream) die("NCCL: one group, two streams");
    bool pairs = kind == NCCL_SEND || kind == NCCL_RECEIVE;
    int tag = pairs ? 0 : FIRST_COLLECTIVE + (int)(comm->collectives++ % COLLECTIVES) * KINDS + kind;
    group->push_back({kind, comm, in, out, count, type, reduction, peer, tag, {}, {}});
    return group_depth == 0 ? end_group() : ncclSuccess;
}

} // namespace emulation

using namespace emulation;

ncclResult_t ncclGetVersion(int *version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *out) {
    static int number;
    unique_id id = {0, number++};
    if (mpi_runs()) MPI_Comm_rank(MPI_COMM_WORLD, &id.world_rank);
    memset(out, 0, sizeof *out);
    memcpy(out, &id, sizeof id);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *out, int size, ncclUniqueId given, int rank) {
    unique_id id;
    if (!out || size < 1 || rank < 0 || rank >= size) return ncclInvalidArgument;
    first_use();
    memcpy(&id, &given, sizeof id);
    *out = new_comm(size == 1 ? MPI_COMM_NULL : bootstrap(size, rank, id), rank, size);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId id, int rank, ncclConfig_t *) {
    return ncclCommInitRank(out, size, id, rank);
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *out, ncclConfig_t *) {
    *out = nullptr;
    if (comm->mpi == MPI_COMM_NULL) {
        if (color != NCCL_SPLIT_NOCOLOR) *out = new_comm(MPI_COMM_NULL, 0, 1);
        return ncclSuccess;
    }
    MPI_Comm part;
    int rank, size;
    MPI_Comm_split(comm->mpi, color == NCCL_SPLIT_NOCOLOR ? MPI_UNDEFINED : color, key, &part);
    if (part == MPI_COMM_NULL) return ncclSuccess;
    MPI_Comm_rank(part, &rank);
    MPI_Comm_size(part, &size);
    *out = new_comm(part, rank, size);
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    if (comm->last.on) wait_for(comm->last);
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    if (!comm) return ncclSuccess;
    ncclCommFinalize(comm);
    if (comm->mpi != MPI_COMM_NULL && mpi_runs()) MPI_Comm_free(&comm->mpi);
    delete comm;
    return ncclSuccess;
}

/* What it had under way ends without a result; the communicator stays, for the work that knows it. */
ncclResult_t ncclCommAbort(ncclComm_t comm) {
    aborted.push_back(comm);
    comm->aborted = true;
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error) {
    *error = comm->error;
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count) {
    *count = comm->size;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank) {
    *rank = comm->rank;
    return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device) {
    *device = comm->device;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    switch (result) {
    case ncclSuccess: return "no error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    default: return "unknown result code";
    }
}

const char *ncclGetLastError(ncclComm_t comm) {
    return comm && comm->error != ncclSuccess ? "asked for by a test" : "";
}

ncclResult_t ncclGroupStart() {
    group_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
    if (group_depth == 0) return ncclInvalidUsage;
    return --group_depth == 0 ? end_group() : ncclSuccess;
}

ncclResult_t ncclSend(const void *in, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return call(NCCL_SEND, comm, in, nullptr, count, type, ncclSum, peer, stream);
}

ncclResult_t ncclRecv(void *out, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
    return call(NCCL_RECEIVE, comm, nullptr, out, count, type, ncclSum, peer, stream);
}

ncclResult_t ncclAllReduce(const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t reduction,
                           ncclComm_t comm, cudaStream_t stream) {
    return call(NCCL_ALLREDUCE, comm, in, out, count, type, reduction, 0, stream);
}

ncclResult_t ncclAllGather(const void *in, void *out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    return call(NCCL_ALLGATHER, comm, in, out, count, type, ncclSum, 0, stream);
}

ncclResult_t ncclReduceScatter(const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t reduction,
                               ncclComm_t comm, cudaStream_t stream) {
    return call(NCCL_REDUCE_SCATTER, comm, in, out, count, type, reduction, 0, stream);
}

ncclResult_t ncclBroadcast(const void *in, void *out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
    return call(NCCL_BROADCAST, comm, in, out, count, type, ncclSum, root, stream);
}
