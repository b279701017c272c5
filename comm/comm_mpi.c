/* Open MPI, host memory. Rows travel with one indexed datatype per peer, so that they leave from and land in their
 * places without being packed by us, and so that counts stay below 2^31 (rows, not bytes). */
#include <mpi.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "comm/roll_call.h"
#include "comm/watch.h"

struct mpi_comm {
    struct comm base;
    MPI_Comm mpi;
    int *members; /* the base's */
};

static MPI_Comm handle_of(struct comm *comm) { return ((struct mpi_comm *)comm)->mpi; }

/* Wrong arguments are a bug; for everything else MPI has the peers or the network to blame. */
static bool is_ours(int code) {
    const int ours[] = {MPI_ERR_BUFFER, MPI_ERR_COUNT, MPI_ERR_TYPE,   MPI_ERR_TAG,     MPI_ERR_COMM,   MPI_ERR_RANK,
                        MPI_ERR_ROOT,   MPI_ERR_GROUP, MPI_ERR_OP,     MPI_ERR_ARG,     MPI_ERR_NO_MEM, MPI_ERR_REQUEST,
                        MPI_ERR_DIMS,   MPI_ERR_INFO,  MPI_ERR_KEYVAL, MPI_ERR_TRUNCATE};
    int class = MPI_ERR_UNKNOWN;
    MPI_Error_class(code, &class);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; ++i)
        if (class == ours[i]) return true;
    return false;
}

static void check(int code, const char *what) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(code, text, &length);
    if (is_ours(code)) FATAL("%s: %s", what, text);
    watch_lost("%s: %s", what, text);
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

static struct comm *mpi_new(MPI_Comm mpi, const struct comm *parent);

static struct comm *mpi_split(struct comm *comm, int color) {
    MPI_Comm part;
    MPI(Comm_split(handle_of(comm), color, comm->rank, &part));
    return mpi_new(part, comm);
}

static struct comm *mpi_split_node(struct comm *comm) {
    MPI_Comm part;
    MPI(Comm_split_type(handle_of(comm), MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &part));
    return mpi_new(part, comm);
}

static void mpi_free(struct comm *comm) {
    struct mpi_comm *own = (struct mpi_comm *)comm;
    bool is_world = comm->id == 0;
    watch_note(comm, is_world ? "the end" : "the end of a group", -1);
    if (is_world) watch_meet(comm); /* nobody is late for MPI_Finalize */
    watch_enter();
    MPI(Comm_free(&own->mpi));
    if (is_world)
        roll_call_end();
    else
        watch_done();
    free(own->members);
    free(own);
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
    .free = mpi_free,
};

static void end_the_job(enum status status) {
    watch_ending(status);
    MPI_Abort(MPI_COMM_WORLD, status);
}

/* Ranks of the world, by rank of the group. */
static int *members_of(MPI_Comm mpi, int size) {
    MPI_Group group, world;
    int *members = malloc(2 * (size_t)size * sizeof *members), *own = members + size;
    if (!members) FATAL("out of memory");
    for (int i = 0; i < size; ++i) own[i] = i;
    MPI(Comm_group(mpi, &group));
    MPI(Comm_group(MPI_COMM_WORLD, &world));
    MPI(Group_translate_ranks(group, size, own, world, members));
    MPI(Group_free(&group));
    MPI(Group_free(&world));
    return members;
}

/* The group is known by which of its parent's operations made it, and by its first rank; the world, which has no
 * parent, as 0. */
static struct comm *mpi_new(MPI_Comm mpi, const struct comm *parent) {
    struct mpi_comm *comm = calloc(1, sizeof *comm);
    if (!comm) FATAL("out of memory");
    struct comm *base = &comm->base;
    base->ops = &mpi_ops;
    base->name = parent ? "part" : "world";
    comm->mpi = mpi;
    MPI(Comm_set_errhandler(mpi, MPI_ERRORS_RETURN));
    MPI(Comm_rank(mpi, &base->rank));
    MPI(Comm_size(mpi, &base->size));
    base->members = comm->members = members_of(mpi, base->size);
    if (parent)
        base->id = hash_splitmix64(parent->id ^
                                   hash_splitmix64((uint64_t)parent->operations << 32 | (uint64_t)base->members[0]));
    return base;
}

const char *comm_thread_level(void) {
    int level;
    MPI(Query_thread(&level));
    return level == MPI_THREAD_MULTIPLE     ? "multiple: any thread may call MPI"
           : level == MPI_THREAD_SERIALIZED ? "serialized: one thread at a time calls MPI"
           : level == MPI_THREAD_FUNNELED   ? "funneled: the main thread calls MPI"
                                            : "single: there are no other threads";
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
    struct comm start = {.name = "world"};
    MPI(Comm_rank(MPI_COMM_WORLD, &start.rank));
    watch_start(start.rank);
    watch_note(&start, "the start", -1);
    watch_enter();
    log_on_fatal(end_the_job);
    MPI(Comm_dup(MPI_COMM_WORLD, &mpi));
    roll_call_start();
    watch_done();
    return mpi_new(mpi, NULL);
}
