/* The device's memory between ranks: sums, exchanges of rows, groups, and what may be under way at once, over every
 * plane. Rows that move must arrive with the same bits, and nothing may land beside their places.
 * Usage: test_plane self|host|staged|nccl [comes|sleeps|dies]
 * The last: what the last rank does in the middle of a step; the exchange is all there is then. */
#include <math.h>
#include <mpi.h>
#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

#include "base/log.h"
#include "comm/comm.h"
#include "expect.h"
#ifdef ON_CUDA
#include <cuda_runtime_api.h>

#include "kernels/ops.h"
#endif

/* On the queue itself, so that nothing but its own order stands between this and what a plane does on it. */
static void copy_on(enum device_queue queue, void *to, const void *from, size_t bytes) {
#ifdef ON_CUDA
    cudaStream_t stream = (cudaStream_t)device->stream(queue);
    if (cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream)) FATAL("cudaMemcpyAsync");
#else
    (void)queue;
    memcpy(to, from, bytes);
#endif
}

/* Device memory that holds the same as `from`, which stays as it is until `get`, for work on `queue`. */
static void *put(enum device_queue queue, const void *from, size_t bytes) {
    void *here = device->allocate(bytes + 1);
    if (!here) abort();
    copy_on(queue, here, from, bytes);
    return here;
}

/* What it holds after the work of `queue`; gives it back. A copy to ordinary memory waits in CUDA itself, which looks
 * for nobody: so it waits before. */
static void get(enum device_queue queue, void *to, void *here, size_t bytes) {
    device->finish(device->mark(queue));
    copy_on(queue, to, here, bytes);
    device->finish(device->mark(queue));
    device->release(here, bytes + 1);
}

/* Whole numbers, exact in every order, in one bucket and in several; what follows them stays as it is. */
static void test_sums(struct comm *comm, enum device_queue queue, int64_t n) {
    size_t reals_bytes = (size_t)(n + 1) * sizeof(real), doubles_bytes = (size_t)(n + 1) * sizeof(double);
    real *reals = take(reals_bytes);
    double *doubles = take(doubles_bytes);
    for (int64_t i = 0; i <= n; ++i) {
        reals[i] = (real)((i + comm->rank) % 1000);
        doubles[i] = (double)(comm->rank + 1) * (double)(i + 1) / 1024;
    }
    void *reals_here = put(queue, reals, reals_bytes), *doubles_here = put(queue, doubles, doubles_bytes);
    comm_sum_here(comm, queue, reals_here, n, COMM_REAL);
    comm_sum_here(comm, queue, doubles_here, n, COMM_DOUBLE);
    get(queue, reals, reals_here, reals_bytes);
    get(queue, doubles, doubles_here, doubles_bytes);
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; ++i) {
        real expected = 0;
        for (int r = 0; r < comm->size; ++r) expected += (real)((i + r) % 1000);
        wrong += reals[i] != expected;
        wrong += doubles[i] != (double)(comm->size * (comm->size + 1) / 2) * (double)(i + 1) / 1024;
    }
    EXPECT(wrong == 0);
    EXPECT(reals[n] == (real)((n + comm->rank) % 1000));
    EXPECT(doubles[n] == (double)(comm->rank + 1) * (double)(n + 1) / 1024);
    free(reals);
    free(doubles);
}

/* Fractions, whose sum depends on its order: every rank still has the same bits, and about that sum. */
static void test_same_bits(struct comm *comm) {
    enum { N = 3000 };
    double *x = take(N * sizeof *x), *all = take(N * sizeof *all);
    int64_t *bits = take((size_t)comm->size * N * sizeof *bits);
    for (int i = 0; i < N; ++i) {
        x[i] = 1.0 / (double)(1001 + value_of(comm->rank, i)) - 0.01;
        all[i] = 0;
        for (int r = 0; r < comm->size; ++r) all[i] += 1.0 / (double)(1001 + value_of(r, i)) - 0.01;
    }
    void *here = put(QUEUE_REDUCE, x, N * sizeof *x);
    comm_sum_here(comm, QUEUE_REDUCE, here, N, COMM_DOUBLE);
    get(QUEUE_REDUCE, x, here, N * sizeof *x);
    for (int i = 0; i < N; ++i) EXPECT(fabs(x[i] - all[i]) <= 1e-14);
    comm_allgather(comm, bits, (const int64_t *)(const void *)x, N);
    for (int64_t i = 0; i < (int64_t)comm->size * N; ++i) EXPECT(bits[i] == bits[i % N]);
    free(x), free(all), free(bits);
}

/* Who sends how many rows in which block of which peer. */
struct traffic {
    const char *name;
    int blocks; /* per peer */
    int64_t row_bytes, most;
    enum { SOME, NONE, ONE_TO_ALL, ALL_TO_ONE } who;
};

static int64_t rows_of(const struct traffic *t, int size, int from, int to, int block) {
    if (t->who == NONE || (t->who == ONE_TO_ALL && from != size - 1) || (t->who == ALL_TO_ONE && to != 0)) return 0;
    int64_t rows = number(from * 64 + to, block, 7, 2 * t->most + 1) - t->most; /* about half of the blocks are empty */
    return rows > 0 ? rows : 0;
}

static unsigned char byte_of(int from, int to, int block, int64_t row, int64_t byte) {
    return (unsigned char)number(from * 4096 + to * 64 + block, row, byte, 256);
}

/* Places the blocks of all peers in an order of its own, with gaps between some of them. Returns the rows of the whole
 * buffer. */
static int64_t place_blocks(int64_t *offset, const int64_t *count, int n, int salt) {
    int64_t at = 2;
    int order[1024];
    for (int i = 0; i < n; ++i) {
        int j = salt ? (int)number(salt, i, 3, i + 1) : i;
        order[i] = order[j];
        order[j] = i;
    }
    for (int i = 0; i < n; ++i) {
        offset[order[i]] = at;
        at += count[order[i]] + (salt ? number(salt, i, 5, 3) : 0);
    }
    return at;
}

/* One exchange under way: its blocks, what it sends, and what must arrive. */
struct exchange {
    const struct traffic *traffic;
    enum device_queue queue;
    int *per_peer;
    int64_t *numbers; /* counts and offsets, of both directions */
    struct comm_blocks receive, send;
    size_t in_bytes, out_bytes;
    unsigned char *in, *before, *expected; /* before: what is there where rows arrive */
    void *in_here, *out_here;
};

/* salt 0: blocks in order and without gaps, so that neighbours may go at once */
static struct exchange prepare(struct comm *comm, const struct traffic *t, enum device_queue queue, int salt) {
    int me = comm->rank, size = comm->size, n = size * t->blocks;
    struct exchange x = {.traffic = t, .queue = queue};
    x.per_peer = take((size_t)size * sizeof *x.per_peer);
    x.numbers = take((size_t)n * 4 * sizeof *x.numbers);
    x.receive = (struct comm_blocks){x.per_peer, x.numbers, x.numbers + n};
    x.send = (struct comm_blocks){x.per_peer, x.numbers + 2 * n, x.numbers + 3 * n};
    for (int p = 0; p < size; ++p) {
        x.per_peer[p] = t->blocks;
        for (int i = 0; i < t->blocks; ++i) {
            x.send.count[p * t->blocks + i] = rows_of(t, size, me, p, i);
            x.receive.count[p * t->blocks + i] = rows_of(t, size, p, me, i);
        }
    }
    int64_t bytes = t->row_bytes;
    x.in_bytes = (size_t)(place_blocks(x.send.offset, x.send.count, n, salt ? salt + me : 0) * bytes);
    x.out_bytes = (size_t)(place_blocks(x.receive.offset, x.receive.count, n, salt ? salt + 100 + me : 0) * bytes);
    x.in = take(x.in_bytes);
    x.before = take(x.out_bytes);
    x.expected = take(x.out_bytes);
    for (int p = 0; p < size; ++p)
        for (int i = 0; i < t->blocks; ++i) {
            int at = p * t->blocks + i;
            for (int64_t j = 0; j < x.send.count[at] * bytes; ++j)
                x.in[x.send.offset[at] * bytes + j] = byte_of(me, p, i, j / bytes, j % bytes);
            for (int64_t j = 0; j < x.receive.count[at] * bytes; ++j)
                x.expected[x.receive.offset[at] * bytes + j] = byte_of(p, me, i, j / bytes, j % bytes);
        }
    x.in_here = put(queue, x.in, x.in_bytes);
    x.out_here = put(queue, x.before, x.out_bytes);
    return x;
}

static void begin(struct comm *comm, const struct exchange *x) {
    int64_t *before = take((size_t)comm->size * sizeof *before);
    for (int p = 0; p < comm->size; ++p) before[p] = comm->sent ? comm->sent[p] : 0;
    comm_exchange_rows(comm, x->queue, x->out_here, x->in_here, x->traffic->row_bytes, &x->receive, &x->send);
    for (int p = 0; p < comm->size; ++p) { /* bytes by peer, added up */
        for (int i = 0; i < x->traffic->blocks; ++i)
            before[p] += rows_of(x->traffic, comm->size, comm->rank, p, i) * x->traffic->row_bytes;
        EXPECT(comm->sent[p] == before[p]);
    }
    free(before);
}

/* Gaps included: nothing lands beside its place. */
static void finish(const struct exchange *x) {
    unsigned char *out = take(x->out_bytes), *in = take(x->in_bytes);
    get(x->queue, out, x->out_here, x->out_bytes);
    get(x->queue, in, x->in_here, x->in_bytes);
    if (memcmp(out, x->expected, x->out_bytes)) failed(__FILE__, __LINE__, x->traffic->name);
    EXPECT(!memcmp(in, x->in, x->in_bytes));
    free(out), free(in), free(x->per_peer), free(x->numbers), free(x->in), free(x->before), free(x->expected);
}

static void test_exchanges(struct comm *comm) {
    const struct traffic traffics[] = {
        {"exchange: one block of a byte", 1, 1, 5, SOME},
        {"exchange: one block of rows", 1, 4 * 17, 9, SOME},
        {"exchange: several blocks", 5, 24, 4, SOME},
        {"exchange: many blocks", 40, 12, 3, SOME},
        {"exchange: long messages", 3, 1024, 300, SOME},
        {"exchange: nothing at all", 3, 8, 4, NONE},
        {"exchange: no block", 0, 8, 4, NONE},
        {"exchange: one rank sends", 4, 20, 6, ONE_TO_ALL},
        {"exchange: one rank receives", 4, 20, 6, ALL_TO_ONE},
    };
    for (size_t i = 0; i < sizeof traffics / sizeof *traffics; ++i)
        for (int salt = 0; salt < 2; ++salt) {
            struct exchange x = prepare(comm, &traffics[i], salt ? QUEUE_DISPATCH : QUEUE_COMPUTE, salt * 7);
            begin(comm, &x);
            finish(&x);
        }
}

/* Two exchanges and a sum at once: each waits for what it needs alone. The third exchange sends on what the second
 * brought: the order of one queue is enough for it. */
static void test_overlap(struct comm *comm) {
    enum { N = 4000 };
    const struct traffic first = {"overlap: first", 3, 64, 20, SOME}, second = {"overlap: second", 2, 48, 30, SOME};
    struct exchange a = prepare(comm, &first, QUEUE_DISPATCH, 3), b = prepare(comm, &second, QUEUE_DISPATCH, 5);
    real *x = take(N * sizeof *x);
    for (int i = 0; i < N; ++i) x[i] = (real)value_of(comm->rank, i);
    void *sum_here = put(QUEUE_REDUCE, x, N * sizeof *x);
    begin(comm, &a);
    comm_sum_here(comm, QUEUE_REDUCE, sum_here, N, COMM_REAL);
    begin(comm, &b);
    unsigned char *returned = take(b.in_bytes);
    void *back = put(QUEUE_DISPATCH, returned, b.in_bytes);
    comm_exchange_rows(comm, QUEUE_DISPATCH, back, b.out_here, second.row_bytes, &b.send, &b.receive);
    get(QUEUE_REDUCE, x, sum_here, N * sizeof *x);
    for (int i = 0; i < N; ++i) {
        int64_t expected = 0;
        for (int r = 0; r < comm->size; ++r) expected += value_of(r, i);
        EXPECT(x[i] == (real)expected);
    }
    get(QUEUE_DISPATCH, returned, back, b.in_bytes);
    EXPECT(!memcmp(returned, b.in, b.in_bytes));
    finish(&b);
    finish(&a);
    free(x), free(returned);
}

static void test_group(struct comm *comm, const char *name) {
    const int64_t counts[] = {0, 1, 17, 5000};
    part = name;
    EXPECT(!comm->sent);
    for (int i = 0; i < 4; ++i) test_sums(comm, (enum device_queue)(i % DEVICE_QUEUES), counts[i]);
    test_same_bits(comm);
    test_exchanges(comm);
    test_overlap(comm);
}

/* Halves by parity, one split again; groups work at the same time and leave their parent as it is. */
static void test_split(struct comm *comm) {
    struct comm *half = comm_split(comm, comm->rank % 2), *same = comm_split(comm, 7);
    EXPECT(half->plane == comm->plane && same->plane == comm->plane);
    test_group(half, comm->rank % 2 ? "odd ranks" : "even ranks");
    part = "split again";
    struct comm *alone = comm_split(half, half->rank);
    EXPECT(alone->plane == comm->plane);
    test_group(alone, "each alone");
    comm_free(alone);
    comm_free(half);
    test_group(same, "all ranks, split");
    comm_free(same);
}

static void use(struct comm *world, const char *plane) {
    if (!strcmp(plane, "staged")) comm_use_staging(world);
#ifdef ON_CUDA
    if (!strcmp(plane, "nccl") && comm_use_nccl(world)) FATAL("no NCCL: %s", status_message());
    if (!strcmp(plane, "nccl")) EXPECT(!strncmp(comm_nccl_version(), "NCCL 2.", 7));
#endif
    bool none = !strcmp(plane, "host") || !strcmp(plane, "self");
    EXPECT(none ? !world->plane : world->plane && !strcmp(world->plane->name, plane));
}

/* The last rank may stop in layer 2 of step 5; the others go on to wait for its rows. */
static void lose_the_last(struct comm *world, const char *way) {
    const struct traffic traffic = {"lost", 8, 32, 10, ONE_TO_ALL};
    struct comm *group = comm_split(world, 0);
    group->name = "experts";
    struct exchange x = prepare(group, &traffic, QUEUE_DISPATCH, 3);
    log_place(5, 2);
    if (group->rank == group->size - 1) {
        if (!strcmp(way, "dies")) raise(SIGKILL);
        if (!strcmp(way, "sleeps")) sleep(60);
    }
    begin(group, &x);
    log_place(5, 3); /* the host is ahead of its device */
    finish(&x);
    comm_free(group);
}

static void choose_device(void) {
#ifdef ON_CUDA
    ops_init_cpu(1, PRECISION_FP32);
    if (ops_init_cuda(0, PRECISION_FP32)) FATAL("no GPU: %s", status_message());
    EXPECT(!device->is_host);
#endif
}

int main(int argc, char **argv) {
    const char *plane = argc > 1 ? argv[1] : "", *lost = argc > 2 ? argv[2] : "";
    part = plane;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
    log_init(world_rank);
    choose_device();
    struct comm *world = strcmp(plane, "self") ? comm_mpi_new() : comm_self_new();
    comm_limit(*lost ? 1 : 30);
    use(world, plane);
    if (*lost) {
        lose_the_last(world, lost);
    } else {
        test_group(world, "all ranks");
        test_sums(world, QUEUE_REDUCE, 2 * (1 << 20) + 3);
        test_split(world);
    }
    comm_free(world);
    int total;
    MPI_Allreduce(&failures, &total, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (world_rank == 0) printf("plane %s on %s: %d failures\n", plane, device->name, total);
    MPI_Finalize();
    return total ? 1 : 0;
}
