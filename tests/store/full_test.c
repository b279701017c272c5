/* In a small file system of one's own, FOLDER: from no space at all to enough of it. The file before stays until the
 * new one is whole. Or in one that is read-only. Usage: full_test FOLDER full|readonly */
#include <fcntl.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "sample.h"

static struct comm *world;
static int failures;

static void expect(bool good, const char *what, int64_t room) {
    if (good) return;
    printf("rank %d: %lld bytes left: %s: %s\n", world->rank, (long long)room, what, status_message());
    failures++;
}

static enum status write_sample(int seed) {
    struct snapshot *snapshot = snapshot_new(world);
    sample_put(snapshot, world->rank, world->size, seed);
    enum status status = snapshot_write(snapshot, "full.h5");
    snapshot_free(snapshot);
    return status;
}

static void expect_whole(int seed, int64_t room) {
    struct archive *archive;
    expect(!archive_open(&archive, "full.h5", world), "open", room);
    const char *wrong = archive ? sample_check(archive, world->rank, world->size, seed, false) : "";
    expect(!wrong, wrong, room);
    archive_close(archive);
}

/* By rank 0: a file that leaves so many bytes. */
static void leave(int64_t room) {
    struct statvfs info;
    if (world->rank == 0) {
        unlink("ballast");
        int fd = open("ballast", O_WRONLY | O_CREAT, 0666);
        expect(fd >= 0 && statvfs(".", &info) == 0, "ballast", room);
        int64_t rest = (int64_t)(info.f_bavail * info.f_frsize) - room;
        expect(rest <= 0 || posix_fallocate(fd, 0, rest) == 0, "ballast", room);
        close(fd);
    }
    comm_barrier(world);
}

static void expect_failure(const char *cause, int64_t room) {
    enum status status = write_sample(2);
    int64_t told = strstr(status_message(), "full.h5.tmp: ") && strstr(status_message(), cause);
    expect(status == STATUS_WRITE, "write", room);
    if (*status_message() && !told) expect(false, "other words", room);
    status_clear();
    comm_allreduce(world, &told, 1, COMM_INT64, COMM_SUM);
    expect(told == 1, "one rank tells", room);
    expect(access("full.h5.tmp", F_OK) == -1, "left behind", room);
}

static void test_full(void) {
    int64_t whole = 8 << 20;
    leave(2 * whole);
    expect(!write_sample(1), "write", -1);
    int64_t room = 0;
    for (; room < 7 << 20; room = room < 65536 ? room + 4096 : room * 5 / 4) {
        leave(room);
        expect_failure("No space left on device", room);
        expect_whole(1, room);
    }
    leave(whole);
    expect(!write_sample(2), "write", whole);
    expect_whole(2, whole);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    world = comm_mpi_new();
    log_init(world->rank);
    if (argc != 3 || chdir(argv[1])) FATAL("usage: full_test FOLDER full|readonly");
    if (!strcmp(argv[2], "full"))
        test_full();
    else
        expect_failure("Read-only file system", -1);
    int64_t all = failures;
    comm_allreduce(world, &all, 1, COMM_INT64, COMM_SUM);
    comm_free(world);
    MPI_Finalize();
    return all != 0;
}
