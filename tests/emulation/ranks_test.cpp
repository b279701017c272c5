/* NCCL over MPI, on any number of ranks. Argument "mismatch": sizes that differ, which must end the job. */
#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "emulation/nccl_work.h"

enum { WIDTH = 3, MOST = 64, TRIES = 200 };

static int rank, size, failures;
static cudaStream_t stream, other;

static void expect(bool holds, const char *what) {
    if (holds) return;
    failures++;
    fprintf(stderr, "rank %d of %d: %s\n", rank, size, what);
}
#define EXPECT(condition) expect(condition, #condition)

static float *device_floats(size_t n) {
    void *at;
    EXPECT(cudaMalloc(&at, n * sizeof(float)) == cudaSuccess);
    return (float *)at;
}

static float *uploaded(const std::vector<float> &values) {
    float *at = device_floats(values.size() + 1);
    cudaMemcpyAsync(at, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice, stream);
    return at;
}

static std::vector<float> downloaded(const float *at, size_t n) {
    std::vector<float> values(n);
    cudaMemcpyAsync(values.data(), at, n * sizeof(float), cudaMemcpyDeviceToHost, stream);
    return values;
}

static ncclComm_t whole() {
    ncclUniqueId id;
    ncclComm_t comm;
    if (rank == size - 1) EXPECT(ncclGetUniqueId(&id) == ncclSuccess);
    MPI_Bcast(&id, sizeof id, MPI_BYTE, size - 1, MPI_COMM_WORLD);
    EXPECT(ncclCommInitRank(&comm, size, id, rank) == ncclSuccess);
    return comm;
}

/* Asked of by the environment for the first group: an error that is told, and work that never ends. */
static void test_error() {
    ncclComm_t comm = whole();
    float *at = device_floats(1);
    ncclResult_t error;
    setenv("VQMOE_EMULATION_NCCL_ERROR", "1", 1);
    EXPECT(ncclAllReduce(at, at, 1, ncclFloat32, ncclSum, comm, stream) == ncclSuccess);
    EXPECT(ncclCommGetAsyncError(comm, &error) == ncclSuccess && error == ncclRemoteError);
    EXPECT(cudaStreamQuery(stream) == cudaErrorNotReady);
    EXPECT(ncclCommAbort(comm) == ncclSuccess);
    EXPECT(cudaStreamQuery(stream) == cudaSuccess);
}

/* Rank r sends (2 r + p) mod 4 rows to rank p. */
static void test_exchange(ncclComm_t comm) {
    std::vector<float> rows, expected;
    for (int p = 0; p < size; p++)
        for (int i = 0; i < (2 * rank + p) % 4 * WIDTH; i++) rows.push_back((float)(1000 * rank + 100 * p + i));
    for (int p = 0; p < size; p++)
        for (int i = 0; i < (2 * p + rank) % 4 * WIDTH; i++) expected.push_back((float)(1000 * p + 100 * rank + i));
    float *in = uploaded(rows), *out = device_floats(expected.size() + 1);
    size_t sent = 0, received = 0;
    EXPECT(ncclGroupStart() == ncclSuccess);
    for (int p = 0; p < size; p++) {
        size_t give = (size_t)((2 * rank + p) % 4 * WIDTH), take = (size_t)((2 * p + rank) % 4 * WIDTH);
        EXPECT(ncclSend(in + sent, give, ncclFloat32, p, comm, stream) == ncclSuccess);
        EXPECT(ncclRecv(out + received, take, ncclFloat32, p, comm, stream) == ncclSuccess);
        sent += give;
        received += take;
    }
    EXPECT(ncclGroupEnd() == ncclSuccess);
    EXPECT(downloaded(out, expected.size()) == expected);
}

static void test_collectives(ncclComm_t comm) {
    std::vector<float> mine, sum, least, all, part, from_last;
    for (int i = 0; i < 2 * size; i++) {
        float expected = 0, value = 0;
        for (int r = 0; r < size; r++) expected += value = 0.1F * (float)(r + 1) + (float)i;
        mine.push_back(0.1F * (float)(rank + 1) + (float)i);
        sum.push_back(expected);
        least.push_back(0.1F + (float)i);
        from_last.push_back(value);
        if (i / 2 == rank) part.push_back(expected);
    }
    for (int r = 0; r < size; r++)
        for (int i = 0; i < 2 * size; i++) all.push_back(0.1F * (float)(r + 1) + (float)i);
    float *in = uploaded(mine), *out = device_floats(all.size());
    size_t n = mine.size();
    EXPECT(ncclAllReduce(in, out, n, ncclFloat32, ncclSum, comm, stream) == ncclSuccess);
    EXPECT(downloaded(out, n) == sum);
    EXPECT(ncclAllReduce(in, out, n, ncclFloat32, ncclMin, comm, stream) == ncclSuccess);
    EXPECT(downloaded(out, n) == least);
    EXPECT(ncclAllGather(in, out, n, ncclFloat32, comm, stream) == ncclSuccess);
    EXPECT(downloaded(out, all.size()) == all);
    EXPECT(ncclReduceScatter(in, out, 2, ncclFloat32, ncclSum, comm, stream) == ncclSuccess);
    EXPECT(downloaded(out, 2) == part);
    EXPECT(ncclBroadcast(in, out, n, ncclFloat32, size - 1, comm, stream) == ncclSuccess);
    EXPECT(downloaded(out, n) == from_last);
}

/* Two communicators on two streams, and ranks that wait for them in different orders. */
static void test_orders(ncclComm_t comm) {
    ncclComm_t part;
    cudaEvent_t first, second;
    float *a = uploaded({1}), *b = device_floats(1);
    cudaStreamSynchronize(stream);
    EXPECT(ncclCommSplit(comm, 0, -rank, &part, nullptr) == ncclSuccess);
    cudaEventCreate(&first);
    cudaEventCreate(&second);
    cudaMemsetAsync(b, 0, sizeof *b, other);
    ncclAllReduce(a, a, 1, ncclFloat32, ncclSum, comm, stream);
    cudaEventRecord(first, stream);
    ncclAllReduce(b, b, 1, ncclFloat32, ncclSum, part, other);
    cudaEventRecord(second, other);
    EXPECT(cudaEventSynchronize(rank % 2 == 0 ? first : second) == cudaSuccess);
    EXPECT(cudaEventSynchronize(rank % 2 == 0 ? second : first) == cudaSuccess);
    EXPECT(downloaded(a, 1)[0] == (float)size && downloaded(b, 1)[0] == 0);
    EXPECT(ncclCommDestroy(part) == ncclSuccess);
}

/* Rank 0 receives what nobody sends: never ready, and the host goes on. */
static void test_absent() {
    ncclComm_t comm = whole();
    float *at = device_floats(1);
    if (rank == 0 && size > 1) {
        EXPECT(ncclRecv(at, 1, ncclFloat32, 1, comm, other) == ncclSuccess);
        for (int i = 0; i < TRIES; i++) EXPECT(cudaStreamQuery(other) == cudaErrorNotReady);
        EXPECT(downloaded(uploaded({5}), 1)[0] == 5); /* another stream is free */
        EXPECT(ncclCommAbort(comm) == ncclSuccess);
        EXPECT(cudaStreamQuery(other) == cudaSuccess);
    } else
        EXPECT(ncclCommDestroy(comm) == ncclSuccess);
}

static void mismatch(ncclComm_t comm) {
    float *at = uploaded({1, 2, 3});
    if (rank == 0)
        ncclSend(at, 3, ncclFloat32, 1, comm, stream);
    else if (rank == 1)
        ncclRecv(at, 2, ncclFloat32, 0, comm, stream);
    cudaStreamSynchronize(stream);
}

int main(int count, char **arguments) {
    MPI_Init(&count, &arguments);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    test_error();
    ncclComm_t comm = whole();
    if (count > 1 && strcmp(arguments[1], "mismatch") == 0) mismatch(comm);
    test_exchange(comm);
    test_collectives(comm);
    test_orders(comm);
    test_absent();
    EXPECT(ncclCommDestroy(comm) == ncclSuccess);
    MPI_Allreduce(MPI_IN_PLACE, &failures, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Finalize();
    return failures > 0;
}
