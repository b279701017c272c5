/* One group of NCCL calls as one piece of a stream's work. */
#ifndef VQMOE_EMULATION_NCCL_WORK_H
#define VQMOE_EMULATION_NCCL_WORK_H

#define OMPI_SKIP_MPICXX 1 /* MPI's C++ interface needs a library of its own */
#include <mpi.h>
#include <nccl.h>

#include <vector>

#include "emulation/emulation.h"

struct ncclComm {
    MPI_Comm mpi; /* MPI_COMM_NULL: one rank alone */
    int rank, size, device;
    bool aborted;
    ncclResult_t error;
    uint64_t collectives;  /* so far, to tell one from the next */
    emulation::place last; /* of its calls; the next starts after it, whatever its stream */
};

namespace emulation {

enum nccl_kind { NCCL_SEND, NCCL_RECEIVE, NCCL_ALLREDUCE, NCCL_ALLGATHER, NCCL_REDUCE_SCATTER, NCCL_BROADCAST };

/* A message to or from a rank. Device memory is read when it is sent, and written when all has come. */
struct message {
    int peer;
    std::vector<char> bytes;
    MPI_Request request;
    MPI_Message matched;
    enum { WAITING, MOVING, DONE } state;
};

struct nccl_call {
    nccl_kind kind;
    ncclComm *comm;
    const void *in;
    void *out;
    size_t count; /* elements of what one rank gives to another */
    ncclDataType_t type;
    ncclRedOp_t reduction;
    int peer; /* or root */
    int tag;
    std::vector<message> sent, received;
};

size_t nccl_size(ncclDataType_t type);

struct nccl_work : work {
    std::vector<nccl_call> *calls;
    bool started = false, broken = false;
    explicit nccl_work(std::vector<nccl_call> *given) : calls(given) {}
    bool advance() override;
};

} // namespace emulation

#endif
