/* Ranks that wait for each other for too long, or nearly. Usage: test_watch WAY, which says what the last rank does;
 * the limit is 1 s, where this process is stopped 4 s. tests/mpi/watch knows how each ends. */
#include <mpi.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/phase.h"
#include "comm/watch.h"

/* Time for which this process was stopped does not count. */
static void nap(double seconds) {
    for (int i = 0; i < 20; ++i) usleep((useconds_t)(seconds * 1e6 / 20));
}

/* This process is stopped for so long, from a moment on. */
static void suspend(double after, double seconds) {
    pid_t parent = getpid();
    if (fork()) return;
    usleep((useconds_t)(after * 1e6));
    kill(parent, SIGSTOP);
    usleep((useconds_t)(seconds * 1e6));
    kill(parent, SIGCONT);
    _exit(0);
}

/* Waits for the rank before it, which waits for all of the world. */
static void go_elsewhere(struct comm *world) {
    struct comm *part = comm_split(world, world->rank == 0);
    part->name = "the pair";
    if (world->rank == world->size - 1) comm_barrier(part);
    int64_t sum = 1;
    comm_allreduce(world, &sum, 1, COMM_INT64, COMM_SUM);
    if (world->rank == world->size - 2) comm_barrier(part);
    comm_free(part);
}

/* All have met; then one of them does not do its part. */
static void block(struct comm *world) {
    watch_note(world, "a sum", 8);
    watch_meet(world);
    if (world->rank == world->size - 1) sleep(60);
    MPI_Barrier(MPI_COMM_WORLD);
    watch_done();
}

static void be_suspended(struct comm *world) {
    comm_limit(4);
    suspend(0.3, 4);
    if (world->rank == world->size - 1) nap(2.3);
    comm_barrier(world);
    watch_meet(world);
    suspend(0.3, 4);
    nap(2.3);
    watch_done();
}

static void be_late(struct comm *world, double seconds) {
    if (world->rank == world->size - 1) nap(seconds);
    for (int i = 0; i < 100; ++i) comm_barrier(world);
    nap(0.2); /* answers that came too late are no trouble */
    comm_barrier(world);
}

int main(int argc, char **argv) {
    const char *way = argc > 1 ? argv[1] : "";
    MPI_Init(&argc, &argv);
    struct comm *world = comm_mpi_new();
    log_init(world->rank);
    comm_limit(1);
    comm_barrier(world);
    log_place(12, 3);
    phase_enter(PHASE_BACKWARD);
    if (!strcmp(way, "never")) be_late(world, 60);
    if (!strcmp(way, "late")) be_late(world, 1.6); /* while the roll is called */
    if (!strcmp(way, "elsewhere")) go_elsewhere(world);
    if (!strcmp(way, "blocks")) block(world);
    if (!strcmp(way, "suspended")) be_suspended(world);
    bool last = world->rank == world->size - 1;
    if (!strcmp(way, "ends late") && last) sleep(60);
    comm_free(world);
    if (!strcmp(way, "ends later") && last) sleep(60);
    MPI_Finalize();
    return 0;
}
