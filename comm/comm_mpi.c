/* Open MPI, host memory. Rows travel with one indexed datatype per peer, so that they leave from and land in their
 * places without being packed by us, and so that counts stay below 2^31 (rows, not bytes). */
#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "comm/comm.h"

struct mpi_comm {
    struct comm base;
    MPI_Comm mpi;
};

static MPI_Comm handle_of(struct comm *comm) { return ((struct mpi_comm *)comm)->mpi; }

static void check(int code, const char *what) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(code, text, &length);
    FATAL("%s: %s", what, text);
}
#define MPI(call) check(MPI_##call, #call)

static int narrow(int64_t count) {
    CHECK(count >= 0 && count <= INT32_MAX);
    return (int)count;
}

static MPI_Datatype type_of(enum comm_type type) {
    if (type == COMM_INT64) return MPI_INT64_T;
    return type == COMM_DOUBLE || sizeof(real) == sizeof(double) ? MPI_DOUBLE : MPI_FLOAT;
}

static void mpi_allreduce(struct comm *comm, void *data, int64_t count, enum comm_type type,
                          enum comm_reduction reduction) {
    MPI_Op op = reduction == COMM_SUM ? MPI_SUM : reduction == COMM_MIN ? MPI_MIN : MPI_MAX;
    MPI(Allreduce(MPI_IN_PLACE, data, narrow(count), type_of(type), op, handle_of(comm)));
}

static void mpi_allgather(struct comm *comm, int64_t *out, const int64_t *in, int64_t count) {
    MPI(Allgather(in, narrow(count), MPI_INT64_T, out, narrow(count), MPI_INT64_T, handle_of(comm)));
}

static void mpi_broadcast(struct comm *comm, void *data, int64_t bytes, int root) {
    MPI(Bcast(data, narrow(bytes), MPI_BYTE, root, handle_of(comm)));
}

/* One type per peer: its blocks of rows. `used` says for whom there is anything at all. */
static void build_types(MPI_Datatype *types, int *used, int peers, MPI_Datatype row, const struct comm_blocks *blocks) {
    int most = 0;
    for (int p = 0; p < peers; ++p)
        if (blocks->per_peer[p] > most) most = blocks->per_peer[p];
    int *lengths = malloc((size_t)(most + 1) * 2 * sizeof *lengths), *places = lengths + most + 1;
    if (!lengths) FATAL("out of memory");
    int64_t at = 0;
    for (int p = 0; p < peers; ++p) {
        int64_t rows = 0;
        for (int i = 0; i < blocks->per_peer[p]; ++i, ++at) {
            lengths[i] = narrow(blocks->count[at]);
            places[i] = narrow(blocks->offset[at]);
            rows += lengths[i];
        }
        used[p] = rows > 0;
        MPI(Type_indexed(blocks->per_peer[p], lengths, places, row, &types[p]));
        MPI(Type_commit(&types[p]));
    }
    free(lengths);
}

static void mpi_exchange_rows(struct comm *comm, void *out, const void *in, int64_t row_bytes,
                              const struct comm_blocks *receive, const struct comm_blocks *send) {
    size_t peers = (size_t)comm->size;
    MPI_Datatype *types = malloc(2 * peers * sizeof *types), row;
    int *used = calloc(4 * peers, sizeof *used), *zeros = used + 2 * peers;
    if (!types || !used) FATAL("out of memory");
    MPI(Type_contiguous(narrow(row_bytes), MPI_BYTE, &row));
    build_types(types, used, comm->size, row, receive);
    build_types(types + peers, used + peers, comm->size, row, send);
    MPI(Alltoallw(in, used + peers, zeros, types + peers, out, used, zeros, types, handle_of(comm)));
    for (size_t i = 0; i < 2 * peers; ++i) MPI(Type_free(&types[i]));
    MPI(Type_free(&row));
    free(types);
    free(used);
}

static void mpi_barrier(struct comm *comm) { MPI(Barrier(handle_of(comm))); }

/* A collective call cannot be left again; a barrier that is only asked about can. */
static void mpi_meet(struct comm *comm, void (*waiting)(double seconds)) {
    const double every = 0.05;
    MPI_Request request;
    MPI(Ibarrier(handle_of(comm), &request));
    double start = MPI_Wtime(), next = start + every;
    for (;;) {
        int here;
        MPI(Test(&request, &here, MPI_STATUS_IGNORE));
        if (here) return;
        double now = MPI_Wtime();
        if (now >= next) {
            waiting(now - start);
            next = now + every;
        }
        sched_yield();
    }
}

static const void *mpi_handle(struct comm *comm) { return &((struct mpi_comm *)comm)->mpi; }

static struct comm *mpi_new(MPI_Comm mpi);

static struct comm *mpi_split(struct comm *comm, int color) {
    MPI_Comm part;
    MPI(Comm_split(handle_of(comm), color, comm->rank, &part));
    return mpi_new(part);
}

static struct comm *mpi_split_node(struct comm *comm) {
    MPI_Comm part;
    MPI(Comm_split_type(handle_of(comm), MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &part));
    return mpi_new(part);
}

static void mpi_free(struct comm *comm) {
    MPI(Comm_free(&((struct mpi_comm *)comm)->mpi));
    free(comm);
}

static const struct comm_ops mpi_ops = {
    .name = "mpi",
    .allreduce = mpi_allreduce,
    .allgather = mpi_allgather,
    .broadcast = mpi_broadcast,
    .exchange_rows = mpi_exchange_rows,
    .barrier = mpi_barrier,
    .meet = mpi_meet,
    .split = mpi_split,
    .split_node = mpi_split_node,
    .mpi_handle = mpi_handle,
    .free = mpi_free,
};

static void end_the_job(enum status status) { MPI_Abort(MPI_COMM_WORLD, status); }

static struct comm *mpi_new(MPI_Comm mpi) {
    struct mpi_comm *comm = calloc(1, sizeof *comm);
    if (!comm) FATAL("out of memory");
    comm->base.ops = &mpi_ops;
    comm->base.name = "part";
    comm->mpi = mpi;
    MPI(Comm_set_errhandler(mpi, MPI_ERRORS_RETURN));
    MPI(Comm_rank(mpi, &comm->base.rank));
    MPI(Comm_size(mpi, &comm->base.size));
    return &comm->base;
}

const char *comm_library_version(void) {
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, ",")] = '\0'; /* the rest tells who built it */
    return text;
}

struct comm *comm_mpi_new(void) {
    MPI_Comm mpi;
    MPI(Comm_dup(MPI_COMM_WORLD, &mpi));
    log_on_fatal(end_the_job);
    struct comm *world = mpi_new(mpi);
    world->name = "world";
    return world;
}
