/* Written on W ranks and read on R, W and R of {1, 2, 3, 4, 8}, by groups of 8 ranks. Then ranks that fail. */
#include <fcntl.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "sample.h"

static int failures;
static struct comm *world;

static void expect(bool good, const char *what, int wrote, int reads) {
    if (good) return;
    printf("rank %d: wrote %d, reads %d: %s: %s\n", world->rank, wrote, reads, what, status_message());
    status_clear();
    failures++;
}

static void write_on(int ranks, const char *path, int seed) {
    struct comm *part = comm_split(world, world->rank < ranks);
    if (world->rank < ranks) {
        struct snapshot *snapshot = snapshot_new(part);
        sample_put(snapshot, part->rank, ranks, seed);
        expect(!snapshot_write(snapshot, path), "write", ranks, 0);
        snapshot_free(snapshot);
    }
    comm_free(part);
    comm_barrier(world);
}

static void read_on(int ranks, const char *path, int wrote, int seed) {
    struct comm *part = comm_split(world, world->rank < ranks);
    if (world->rank < ranks) {
        struct archive *archive;
        enum status status = archive_open(&archive, path, part);
        expect(!status, "open", wrote, ranks);
        if (!status) {
            const char *wrong = sample_check(archive, part->rank, ranks, seed, wrote % 2);
            int64_t bytes = 0;
            expect(!wrong, wrong, wrote, ranks);
            expect(!archive_verify(archive, &bytes), "verify", wrote, ranks);
            expect(bytes == archive_contents(archive)->bytes - archive_find(archive, "/checksums")->bytes,
                   "bytes verified", wrote, ranks);
            archive_close(archive);
        }
    }
    comm_free(part);
    comm_barrier(world);
}

static void matrix(void) {
    const int counts[] = {1, 2, 3, 4, 8};
    for (int i = 0; i < 5 && counts[i] <= world->size; ++i) {
        write_on(counts[i], "ranks.h5", i);
        for (int j = 0; j < 5 && counts[j] <= world->size; ++j) read_on(counts[j], "ranks.h5", counts[i], i);
    }
}

/* One damaged byte is found by one rank, and known by all. */
static void damaged(void) {
    struct archive *archive;
    int64_t bytes;
    if (world->rank == 0) {
        expect(!archive_open(&archive, "ranks.h5", NULL), "open", 0, 1);
        int64_t at = archive_find(archive, "/long")->offset + 2000000;
        archive_close(archive);
        int fd = open("ranks.h5", O_RDWR);
        char byte;
        expect(pread(fd, &byte, 1, at) == 1, "read", 0, 0);
        byte ^= 1;
        expect(pwrite(fd, &byte, 1, at) == 1, "damage", 0, 0);
        close(fd);
    }
    comm_barrier(world);
    expect(!archive_open(&archive, "ranks.h5", world), "open", 0, world->size);
    enum status status = archive_verify(archive, &bytes);
    expect(status == STATUS_CHECKPOINT, "verify what is damaged", 0, world->size);
    int64_t told = strstr(status_message(), "ranks.h5: /long: expected checksum ") != NULL;
    status_clear();
    comm_allreduce(world, &told, 1, COMM_INT64, COMM_SUM);
    expect(told == 1, "one rank tells", 0, world->size);
    archive_close(archive);
}

/* The last rank cannot write: all know, and the file before stays. */
static void fails_on_one(void) {
    write_on(world->size, "ranks.h5", 7);
    struct snapshot *snapshot = snapshot_new(world);
    struct rlimit before, limit;
    sample_put(snapshot, world->rank, world->size, 8);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    limit = before;
    limit.rlim_cur = 100000;
    expect(!snapshot_begin(snapshot, "ranks.h5"), "begin", world->size, 0);
    if (world->rank == world->size - 1) setrlimit(RLIMIT_FSIZE, &limit);
    snapshot_fill(snapshot);
    setrlimit(RLIMIT_FSIZE, &before);
    expect(snapshot_end(snapshot) == STATUS_WRITE, "end", world->size, 0);
    const char *expected = "ranks.h5.tmp: cannot write: File too large";
    expect(!strcmp(status_message(), world->rank == world->size - 1 ? expected : ""), "message", world->size, 0);
    status_clear();
    snapshot_free(snapshot);
    expect(access("ranks.h5.tmp", F_OK) == -1, "left behind", world->size, 0);
    read_on(world->size, "ranks.h5", world->size, 7);
    snapshot = snapshot_new(world);
    sample_put(snapshot, world->rank, world->size, 8);
    expect(snapshot_write(snapshot, "no_folder/ranks.h5") == STATUS_WRITE, "no folder", world->size, 0);
    expect(!strcmp(status_message(),
                   world->rank ? "" : "no_folder/ranks.h5.tmp: cannot create: No such file or directory"),
           "message", world->size, 0);
    status_clear();
    snapshot_free(snapshot);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    world = comm_mpi_new();
    log_init(world->rank);
    if (world->rank == 0 && system("rm -rf store_ranks_8 && mkdir store_ranks_8")) failures++;
    comm_barrier(world);
    if (chdir("store_ranks_8")) failures++;
    matrix();
    damaged();
    fails_on_one();
    int64_t all = failures;
    comm_allreduce(world, &all, 1, COMM_INT64, COMM_SUM);
    comm_free(world);
    MPI_Finalize();
    return all != 0;
}
