#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/bench.h"
#include "train/checkpoint.h"

enum { ROUNDS = 6, PIECE = 1 << 30 };
enum { PLAIN_WRITE, WRITE, SNAPSHOT, PLAIN_COLD, COLD, PLAIN_WARM, WARM, TIMES };

struct bench {
    struct step *step;
    struct comm *world;
    struct text text;
    struct snapshot *snapshot;     /* kept, as training does */
    char plain[1024], whole[1024]; /* files */
    char *buffer;                  /* what is written, and read into, by plain calls */
    int64_t room;                  /* bytes of the buffer */
    int64_t writes, reads, first;  /* bytes of this rank; where its part of the plain file begins */
    double seconds[TIMES][ROUNDS];
};

static enum status io_failed(const char *path, const char *what) {
    return status_fail(STATUS_WRITE, "%s: cannot %s: %s", path, what, strerror(errno));
}

/* All of it, by large calls. */
static bool move(int fd, char *buffer, int64_t bytes, int64_t at, bool write) {
    for (int64_t done = 0; done < bytes;) {
        size_t size = (size_t)(bytes - done < PIECE ? bytes - done : PIECE);
        ssize_t moved = write ? pwrite(fd, buffer + done, size, at + done) : pread(fd, buffer + done, size, at + done);
        if (moved <= 0) return false;
        done += moved;
    }
    return true;
}

/* The floor: the same bytes of each rank into one file, synced. */
static enum status plain_write(struct bench *b) {
    int fd = open(b->plain, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    bool good = fd >= 0 && move(fd, b->buffer, b->writes, b->first, true) && fsync(fd) == 0;
    enum status status = good ? STATUS_OK : io_failed(b->plain, "write");
    if (fd >= 0) close(fd);
    return comm_agree(b->world, status);
}

/* As many bytes as resuming reads, each rank from its own part on, round the end of the file. */
static enum status plain_read(struct bench *b) {
    int fd = open(b->plain, O_RDONLY | O_CLOEXEC);
    int64_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    bool good = size > 0;
    for (int64_t done = 0, part; good && done < b->reads; done += part) {
        int64_t at = (b->first + done) % size, most = size - at < b->room ? size - at : b->room;
        part = b->reads - done < most ? b->reads - done : most;
        good = move(fd, b->buffer, part, at, false);
    }
    enum status status = good ? STATUS_OK : io_failed(b->plain, "read");
    if (fd >= 0) close(fd);
    return comm_agree(b->world, status);
}

static enum status write_checkpoint(struct bench *b, double *snapshot_seconds) {
    struct progress progress = {0};
    double from = clock_seconds();
    snapshot_clear(b->snapshot);
    checkpoint_snapshot(b->snapshot, b->step, &(struct diagnostics){0},
                        &(struct legend){.vocabulary = &b->text.vocabulary}, &progress);
    b->writes = snapshot_bytes(b->snapshot);
    *snapshot_seconds = clock_seconds() - from;
    return snapshot_write(b->snapshot, b->whole);
}

static enum status read_checkpoint(struct bench *b) {
    struct progress progress;
    return checkpoint_resume(b->whole, b->step, &(struct diagnostics){0},
                             &(struct legend){.vocabulary = &b->text.vocabulary}, &progress);
}

/* What was read or written no longer stands in this machine's memory. */
static void forget(struct bench *b) {
    const char *paths[] = {b->plain, b->whole};
    for (int i = 0; i < 2; ++i) {
        int fd = open(paths[i], O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
            close(fd);
        }
    }
    comm_barrier(b->world);
}

static enum status timed(struct bench *b, int what, int round, enum status (*run)(struct bench *b)) {
    comm_barrier(b->world);
    double from = clock_seconds();
    enum status status = run(b);
    b->seconds[what][round] = clock_seconds() - from;
    return status;
}

static enum status timed_write(struct bench *b, int round) {
    double snapshot = 0;
    comm_barrier(b->world);
    double from = clock_seconds();
    enum status status = write_checkpoint(b, &snapshot);
    b->seconds[WRITE][round] = clock_seconds() - from - snapshot;
    b->seconds[SNAPSHOT][round] = snapshot;
    return status;
}

/* One before the other in one round, after it in the next: a disk may be quick for the first bytes alone. */
static enum status round_of(struct bench *b, int round) {
    bool plain_first = round % 2 == 0;
    if (b->world->rank == 0) unlink(b->plain);
    if (b->world->rank == 0) unlink(b->whole);
    if (plain_first) TRY(timed(b, PLAIN_WRITE, round, plain_write));
    TRY(timed_write(b, round));
    if (!plain_first) TRY(timed(b, PLAIN_WRITE, round, plain_write));
    forget(b);
    if (plain_first) TRY(timed(b, PLAIN_COLD, round, plain_read));
    TRY(timed(b, COLD, round, read_checkpoint));
    if (!plain_first) TRY(timed(b, PLAIN_COLD, round, plain_read));
    TRY(timed(b, PLAIN_WARM, round, plain_read));
    return timed(b, WARM, round, read_checkpoint);
}

/* The least over rounds of the slowest rank. */
static double least(struct bench *b, int what) {
    double seconds = INFINITY;
    comm_allreduce(b->world, b->seconds[what], ROUNDS, COMM_DOUBLE, COMM_MAX);
    for (int round = 0; round < ROUNDS; ++round) seconds = fmin(seconds, b->seconds[what][round]);
    return seconds;
}

static void print_pair(const char *name, double floor, double ours, double bytes) {
    log_info("%-28s plain %7.3f s (%6.2f GB/s), checkpoint %7.3f s (%6.2f GB/s): ratio %.2f", name, floor,
             bytes / floor * 1e-9, ours, bytes / ours * 1e-9, ours / floor);
}

static void print(struct bench *b) {
    double bytes[2] = {(double)b->writes, (double)b->reads}, at[TIMES];
    comm_allreduce(b->world, bytes, 2, COMM_DOUBLE, COMM_SUM);
    for (int i = 0; i < TIMES; ++i) at[i] = least(b, i);
    log_info("checkpoint of %.3f GB, %d ranks; least of %d rounds, of the slowest rank; plain: pwrite and fsync, or "
             "pread, of the same bytes by the same ranks",
             bytes[0] * 1e-9, b->world->size, ROUNDS);
    log_info("%-28s %.3f s (%.2f GB/s)", "snapshot into memory", at[SNAPSHOT], bytes[0] / at[SNAPSHOT] * 1e-9);
    print_pair("write, synced", at[PLAIN_WRITE], at[WRITE], bytes[0]);
    print_pair("read, page cache dropped", at[PLAIN_COLD], at[COLD], bytes[1]);
    print_pair("read, from the page cache", at[PLAIN_WARM], at[WARM], bytes[1]);
}

/* What checkpoint_resume reads on this rank. */
static int64_t resume_bytes(const struct step *step) {
    const struct params *params = &step->model->params;
    int64_t reals = 0;
    for (int i = 0; i < params->count; ++i)
        reals += params->list[i]->size * (params->list[i]->placement == PLACE_STATE ? 1 : 3);
    return (reals + step->memory.layers * step->rows * step->memory.length * step->memory.d_model) *
           (int64_t)sizeof(real);
}

enum status bench_checkpoint(struct step *step, const char *folder) {
    struct bench b = {
        .step = step,
        .world = step->model->world,
    };
    double snapshot;
    bool seen[256];
    for (int i = 0; i < 256; ++i) seen[i] = i < step->model->V;
    vocabulary_from_bytes(&b.text.vocabulary, seen); /* of words its bytes are few beside the rest */
    snprintf(b.plain, sizeof b.plain, "%s/bench-plain.tmp", folder);
    snprintf(b.whole, sizeof b.whole, "%s/bench-checkpoint.h5", folder);
    b.snapshot = snapshot_new(b.world);
    enum status status = write_checkpoint(&b, &snapshot); /* also says how many bytes */
    if (!status) {
        int64_t *all = malloc((size_t)b.world->size * sizeof *all);
        b.room = b.writes > 1 << 20 ? b.writes : 1 << 20;
        b.buffer = malloc((size_t)b.room);
        if (!all || !b.buffer) FATAL("out of memory");
        memset(b.buffer, 42, (size_t)b.room);
        comm_allgather(b.world, all, &b.writes, 1);
        for (int r = 0; r < b.world->rank; ++r) b.first += all[r];
        free(all);
        b.reads = resume_bytes(step);
    }
    for (int round = 0; round < ROUNDS && !status; ++round) {
        log_progress("round %d of %d", round + 1, ROUNDS);
        status = round_of(&b, round);
    }
    if (!status) print(&b);
    if (b.world->rank == 0) unlink(b.plain);
    if (b.world->rank == 0) unlink(b.whole);
    snapshot_free(b.snapshot);
    free(b.buffer);
    return status;
}
