/* Every function of comm.h on host memory against what a naive computation gives, on any number of ranks, and on one
 * process alone ("self"). The device's memory is plane_test.c's. */
#include <math.h>
#include <mpi.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "comm/comm.h"
#include "expect.h"

#define BIG ((INT64_C(1) << 45) + 1) /* times a value: whole numbers that a double does not hold */

static int64_t reduced(int size, int64_t i, enum comm_reduction reduction) {
    int64_t result = value_of(0, i);
    for (int r = 1; r < size; ++r) {
        int64_t value = value_of(r, i);
        if (reduction == COMM_SUM)
            result += value;
        else if (reduction == COMM_MIN ? value < result : value > result)
            result = value;
    }
    return result;
}

static void test_allreduce(struct comm *comm) {
    const int64_t counts[] = {0, 1, 17, 5000};
    for (int c = 0; c < 4; ++c)
        for (int reduction = COMM_SUM; reduction <= COMM_MAX; ++reduction) {
            int64_t n = counts[c];
            real *reals = take((size_t)n * sizeof *reals);
            double *doubles = take((size_t)n * sizeof *doubles);
            int64_t *ints = take((size_t)n * sizeof *ints);
            for (int64_t i = 0; i < n; ++i) {
                ints[i] = value_of(comm->rank, i) * BIG;
                doubles[i] = (double)value_of(comm->rank, i) / 1024;
                reals[i] = (real)value_of(comm->rank, i) / 4;
            }
            comm_allreduce(comm, reals, n, COMM_REAL, (enum comm_reduction)reduction);
            comm_allreduce(comm, doubles, n, COMM_DOUBLE, (enum comm_reduction)reduction);
            comm_allreduce(comm, ints, n, COMM_INT64, (enum comm_reduction)reduction);
            for (int64_t i = 0; i < n; ++i) {
                int64_t expected = reduced(comm->size, i, (enum comm_reduction)reduction);
                EXPECT(reals[i] == (real)expected / 4);
                EXPECT(doubles[i] == (double)expected / 1024);
                EXPECT(ints[i] == expected * BIG);
            }
            free(reals), free(doubles), free(ints);
        }
}

/* Fractions, whose sum depends on its order: every rank still has the same bits, and that sum. */
static void test_same_bits(struct comm *comm) {
    enum { N = 3000 };
    double *x = take(N * sizeof *x), *all = take(N * sizeof *all);
    int64_t *bits = take((size_t)comm->size * N * sizeof *bits);
    for (int i = 0; i < N; ++i) {
        x[i] = 1.0 / (double)(1001 + value_of(comm->rank, i)) - 0.01;
        all[i] = 0;
        for (int r = 0; r < comm->size; ++r) all[i] += 1.0 / (double)(1001 + value_of(r, i)) - 0.01;
    }
    comm_allreduce(comm, x, N, COMM_DOUBLE, COMM_SUM);
    for (int i = 0; i < N; ++i) EXPECT(fabs(x[i] - all[i]) <= 1e-14);
    comm_allgather(comm, bits, (const int64_t *)(const void *)x, N);
    for (int64_t i = 0; i < (int64_t)comm->size * N; ++i) EXPECT(bits[i] == bits[i % N]);
    free(x), free(all), free(bits);
}

static void test_allgather(struct comm *comm) {
    const int64_t counts[] = {0, 1, 17, 4000};
    for (int c = 0; c < 4; ++c) {
        int64_t n = counts[c], *in = take((size_t)n * sizeof *in), *out = take((size_t)(comm->size * n) * sizeof *out);
        for (int64_t i = 0; i < n; ++i) in[i] = value_of(comm->rank, i);
        comm_allgather(comm, out, in, n);
        for (int r = 0; r < comm->size; ++r)
            for (int64_t i = 0; i < n; ++i) EXPECT(out[r * n + i] == value_of(r, i));
        free(in), free(out);
    }
}

static void test_broadcast(struct comm *comm) {
    const int64_t counts[] = {0, 1, 7, 100000};
    for (int root = 0; root < comm->size; ++root)
        for (int c = 0; c < 4; ++c) {
            unsigned char *data = take((size_t)counts[c]);
            for (int64_t i = 0; i < counts[c]; ++i) data[i] = (unsigned char)(value_of(comm->rank, i) & 255);
            comm_broadcast(comm, data, counts[c], root);
            int64_t wrong = 0;
            for (int64_t i = 0; i < counts[c]; ++i) wrong += data[i] != (unsigned char)(value_of(root, i) & 255);
            EXPECT(wrong == 0);
            EXPECT(data[counts[c]] == 0xA5);
            free(data);
        }
}

/* Every set of failing ranks: all learn the status of the first, and it alone keeps its message. */
static void test_agree(struct comm *comm) {
    for (int failing = 0; failing < 1 << comm->size; ++failing) {
        enum status mine = STATUS_OK, first = STATUS_OK;
        int who = -1;
        for (int r = comm->size - 1; r >= 0; --r)
            if (failing >> r & 1) first = (enum status)(STATUS_CONFIG + r), who = r;
        status_clear();
        if (failing >> comm->rank & 1) {
            char text[32];
            snprintf(text, sizeof text, "rank %d failed", comm->rank);
            mine = status_fail((enum status)(STATUS_CONFIG + comm->rank), "%s", text);
        }
        EXPECT(comm_agree(comm, mine) == first);
        char expected[32] = "";
        if (who == comm->rank) snprintf(expected, sizeof expected, "rank %d failed", who);
        EXPECT(!strcmp(status_message(), expected));
    }
    status_clear();
}

static void test_group(struct comm *comm, const char *name) {
    part = name;
    EXPECT(comm->rank >= 0 && comm->rank < comm->size);
    EXPECT(!comm->sent);
    comm_barrier(comm);
    test_allreduce(comm);
    test_same_bits(comm);
    test_allgather(comm);
    test_broadcast(comm);
    test_agree(comm);
    comm_barrier(comm);
}

/* Halves by parity, the first half split again; groups work at the same time and leave their parent as it is. */
static void test_split(struct comm *comm) {
    struct comm *half = comm_split(comm, comm->rank % 2), *same = comm_split(comm, 7);
    EXPECT(half->rank == comm->rank / 2);
    EXPECT(half->size == (comm->size + 1 - comm->rank % 2) / 2);
    EXPECT(same->rank == comm->rank && same->size == comm->size);
    test_group(half, comm->rank % 2 ? "odd ranks" : "even ranks");
    part = "split again";
    struct comm *alone = comm_split(half, half->rank);
    EXPECT(alone->rank == 0 && alone->size == 1);
    test_group(alone, "each alone");
    comm_free(alone);
    comm_free(half);
    test_group(same, "all ranks, split");
    comm_free(same);
    struct comm *node = comm_split_node(comm); /* the tests run on one machine */
    EXPECT(node->rank == comm->rank && node->size == comm->size);
    test_group(node, "all ranks of the node");
    comm_free(node);
}

/* One clock for all ranks of a machine, which MPI_Wtime need not be. */
static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* A rank waits for the others: nobody passes a barrier before all have come. */
static void test_barrier(struct comm *comm) {
    part = "barrier";
    if (comm->rank == comm->size - 1) usleep(100000);
    int64_t came = nanoseconds(), latest;
    comm_barrier(comm);
    int64_t passed = nanoseconds();
    MPI_Allreduce(&came, &latest, 1, MPI_INT64_T, MPI_MAX, MPI_COMM_WORLD);
    EXPECT(passed >= latest);
}

/* The one process checks the contract that other transports rely on: a violation ends it. */
static void test_contract(struct comm *comm) {
    int one = 1, two = 2;
    int64_t zeros[2] = {0, 0}, counts[2] = {2, 1};
    const struct comm_blocks good = {&one, zeros, counts}, fewer = {&one, zeros, counts + 1},
                             more = {&two, zeros, counts};
    char in[64] = "", out[64];
    for (int i = 0; i < 5; ++i) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            if (!freopen("/dev/null", "w", stderr)) _exit(2);
            if (i == 0) comm_exchange_rows(comm, QUEUE_COMPUTE, out, in, 4, &good, &fewer);
            if (i == 1) comm_exchange_rows(comm, QUEUE_COMPUTE, out, in, 4, &more, &good);
            if (i == 2) comm_broadcast(comm, out, 4, 1);
            if (i == 3) comm_allreduce(comm, out, -1, COMM_REAL, COMM_SUM);
            if (i == 4) comm_sum_here(comm, QUEUE_COMPUTE, out, 1, COMM_INT64);
            _exit(0);
        }
        int ended = 0;
        EXPECT(waitpid(child, &ended, 0) == child);
        EXPECT(WIFEXITED(ended) && WEXITSTATUS(ended) == STATUS_INTERNAL);
    }
}

int main(int argc, char **argv) {
    part = "alone";
    comm_free(NULL);
    EXPECT(comm_library_version()[0]);
    if (argc > 1 && !strcmp(argv[1], "self")) {
        struct comm *self = comm_self_new(), *again = comm_split(self, 3), *node = comm_split_node(self);
        EXPECT(node->rank == 0 && node->size == 1);
        EXPECT(!strcmp(self->ops->name, "self"));
        EXPECT(self->rank == 0 && self->size == 1);
        test_group(self, "self");
        test_group(again, "self, split");
        test_contract(self);
        comm_free(node);
        comm_free(again);
        comm_free(self);
        return failures ? 1 : 0;
    }
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
    log_init(world_rank);
    int size, total;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    struct comm *world = comm_mpi_new();
    part = "all ranks";
    EXPECT(world->rank == world_rank && world->size == size);
    test_barrier(world);
    test_group(world, "all ranks");
    test_split(world);
    comm_free(world);
    MPI_Allreduce(&failures, &total, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (world_rank == 0) printf("comm: %d ranks, %d failures\n", size, total);
    MPI_Finalize();
    return total ? 1 : 0;
}
