#include "comm/roll_call.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

enum { QUESTION, ANSWER, KINDS };
enum { HOST = 64 };

/* Travels as bytes: the machines of a job are of one kind. */
struct message {
    int32_t kind, question;
    uint64_t group_id;
    int64_t number, bytes, step;
    int32_t layer;
    char operation[40], group[24], phase[16];
};

/* One message of each kind is under way to each rank; a rank that does not take it gets no second one. */
struct outgoing {
    struct message message;
    MPI_Request request;
};

static struct {
    MPI_Comm mpi;
    int rank, size;
    char (*hosts)[HOST];       /* [size] */
    struct outgoing *outgoing; /* [KINDS, size] */
    struct message *answers;   /* [size] */
    bool *asked, *answered;    /* [size] */
    int question;              /* the last one's number */
    int first;                 /* of those that count */
} roll = {.mpi = MPI_COMM_NULL};

static void *zeros(size_t count, size_t bytes) {
    void *memory = calloc(count, bytes);
    if (!memory) FATAL("out of memory");
    return memory;
}

void roll_call_start(void) {
    if (roll.mpi != MPI_COMM_NULL) FATAL("there is one world only");
    MPI_Comm_dup(MPI_COMM_WORLD, &roll.mpi);
    MPI_Comm_set_errhandler(roll.mpi, MPI_ERRORS_RETURN); /* a rank that cannot be reached does not answer */
    MPI_Comm_rank(roll.mpi, &roll.rank);
    MPI_Comm_size(roll.mpi, &roll.size);
    size_t n = (size_t)roll.size;
    roll.hosts = zeros(n, sizeof *roll.hosts);
    roll.outgoing = zeros(KINDS * n, sizeof *roll.outgoing);
    roll.answers = zeros(n, sizeof *roll.answers);
    roll.asked = zeros(2 * n, sizeof *roll.asked);
    roll.answered = roll.asked + n;
    for (size_t i = 0; i < KINDS * n; ++i) roll.outgoing[i].request = MPI_REQUEST_NULL;
    char host[HOST] = "";
    gethostname(host, sizeof host - 1);
    MPI_Allgather(host, HOST, MPI_BYTE, roll.hosts, HOST, MPI_BYTE, roll.mpi);
}

void roll_call_end(void) {
    int gone = 1;
    for (int i = 0; i < KINDS * roll.size; ++i) {
        int one = 1;
        MPI_Test(&roll.outgoing[i].request, &one, MPI_STATUS_IGNORE);
        gone &= one;
    }
    if (gone) free(roll.outgoing); /* else MPI still reads it */
    free(roll.hosts);
    free(roll.answers);
    free(roll.asked);
    MPI_Comm_free(&roll.mpi);
}

static void send(int to, int kind, int question, const struct watch_place *here) {
    struct outgoing *out = &roll.outgoing[kind * roll.size + to];
    struct message *m = &out->message;
    int gone = 1;
    MPI_Test(&out->request, &gone, MPI_STATUS_IGNORE);
    if (!gone) return;
    *m = (struct message){.kind = kind, .question = question};
    if (here) {
        m->group_id = here->group_id;
        m->number = here->number;
        m->bytes = here->bytes;
        m->step = here->step;
        m->layer = here->layer;
        snprintf(m->operation, sizeof m->operation, "%s", here->operation);
        snprintf(m->group, sizeof m->group, "%s", here->group);
        snprintf(m->phase, sizeof m->phase, "%s", here->phase);
    }
    MPI_Isend(m, sizeof *m, MPI_BYTE, to, 0, roll.mpi, &out->request);
}

void roll_call_answer(const struct watch_place *here) {
    for (;;) {
        MPI_Status status;
        struct message m;
        int there = 0;
        if (MPI_Iprobe(MPI_ANY_SOURCE, 0, roll.mpi, &there, &status) || !there) return;
        if (MPI_Recv(&m, sizeof m, MPI_BYTE, status.MPI_SOURCE, 0, roll.mpi, MPI_STATUS_IGNORE)) return;
        if (m.kind == QUESTION) {
            send(status.MPI_SOURCE, ANSWER, m.question, here);
        } else if (m.question >= roll.first) {
            roll.answered[status.MPI_SOURCE] = true;
            roll.answers[status.MPI_SOURCE] = m;
        }
    }
}

void roll_call_ask(const int *members, int n, bool again) {
    ++roll.question;
    if (!members) n = roll.size;
    if (!again) {
        roll.first = roll.question;
        memset(roll.asked, 0, 2 * (size_t)roll.size * sizeof *roll.asked);
    }
    for (int i = 0; i < n; ++i) {
        int rank = members ? members[i] : i;
        roll.asked[rank] = true;
        if (rank != roll.rank) send(rank, QUESTION, roll.question, NULL);
    }
}

/* ---- What came out ---- */

enum presence { HERE, ELSEWHERE, SILENT, NOT_ASKED };

static enum presence presence_of(int rank, const struct watch_place *here) {
    const struct message *m = &roll.answers[rank];
    if (!roll.asked[rank]) return NOT_ASKED;
    if (rank == roll.rank) return HERE;
    if (!roll.answered[rank]) return SILENT;
    return m->group_id == here->group_id && m->number == here->number ? HERE : ELSEWHERE;
}

/* "rank 3", "ranks 0-2, 5"; returns how many. */
static int add_ranks(char *text, size_t size, const struct watch_place *here, enum presence presence) {
    int count = 0;
    char list[256] = "";
    for (int r = 0, end; r < roll.size; r = end) {
        for (end = r; end < roll.size && presence_of(end, here) == presence;) ++end;
        if (end > r) watch_add(list, sizeof list, count ? ", %d" : "%d", r);
        if (end > r + 1) watch_add(list, sizeof list, "-%d", end - 1);
        count += end - r;
        if (end == r) ++end;
    }
    if (count) watch_add(text, size, "%s %s", count == 1 ? "rank" : "ranks", list);
    return count;
}

static void add_elsewhere(char *text, size_t size, int rank) {
    const struct message *m = &roll.answers[rank];
    const struct watch_place place = {m->operation, m->group, m->group_id, m->number,
                                      m->bytes,     m->step,  m->layer,    m->phase};
    watch_add(text, size, "; rank %d waits in ", rank);
    watch_add_place(text, size, &place);
}

void roll_call_result(const struct watch_place *here, char *missing, size_t missing_size, char *rest,
                      size_t rest_size) {
    enum { NAMED = 8 };
    int count = 0, elsewhere = 0;
    if (add_ranks(rest, rest_size, here, HERE) == 1)
        watch_add(rest, rest_size, " is here");
    else
        watch_add(rest, rest_size, " are here");
    for (int r = 0; r < roll.size; ++r) {
        enum presence presence = presence_of(r, here);
        if (presence != SILENT && presence != ELSEWHERE) continue;
        if (count++ < NAMED)
            watch_add(missing, missing_size, "%s%d (host %s)", count > 1 ? ", " : " for rank ", r, roll.hosts[r]);
        if (presence == ELSEWHERE && elsewhere++ < NAMED) add_elsewhere(rest, rest_size, r);
    }
    if (count > NAMED) watch_add(missing, missing_size, " and %d more", count - NAMED);
    if (count == elsewhere) return;
    watch_add(rest, rest_size, "; ");
    int silent = add_ranks(rest, rest_size, here, SILENT);
    watch_add(rest, rest_size, " %s not answer (computing, held up by a peer, stopped or lost)",
              silent == 1 ? "does" : "do");
}
