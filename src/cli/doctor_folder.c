/* The file system that runs are written to. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/doctor.h"
#include "store/h5.h"

enum {
    WRITTEN = 64 << 20,
    PATIENCE = 10, /* seconds until a file must be seen */
    PIECE = 100,   /* bytes, that a page is not made of whole ones */
    PIECES = 41    /* of each rank, of a page together */
};

static const struct system {
    unsigned long type; /* 0: any */
    const char *name, *hint;
} systems[] = {
    {NFS_SUPER_MAGIC, "NFS", NULL},
    {0x0BD00BD0, "Lustre", NULL},
    {0x47504653, "GPFS", NULL},
    {0x19830326, "BeeGFS", NULL},
    {CEPH_SUPER_MAGIC, "Ceph", NULL},
    {FUSE_SUPER_MAGIC, "FUSE", NULL},
    {V9FS_MAGIC, "9P", NULL},
    {EXT4_SUPER_MAGIC, "ext4", NULL},
    {XFS_SUPER_MAGIC, "XFS", NULL},
    {BTRFS_SUPER_MAGIC, "Btrfs", NULL},
    {OVERLAYFS_SUPER_MAGIC, "overlay", "a container's own, gone with it: write to a mounted folder"},
    {TMPFS_MAGIC, "tmpfs", "memory of one node, gone when it starts anew: write to a disk"},
    {0, "of a kind not known here", NULL},
};

static const struct system *system_of(const struct statfs *info) {
    const struct system *system = systems;
    while (system->type && system->type != (unsigned long)info->f_type) ++system;
    return system;
}

static void check_system(struct doctor *doctor) {
    struct finding finding = {0};
    struct statfs info;
    if (statfs(doctor->folder, &info)) {
        finding_set(&finding, LEVEL_FAIL, "%s: %s", doctor->folder, strerror(errno));
    } else {
        const char *name = system_of(&info)->name, *hint = system_of(&info)->hint;
        double free_space = (double)info.f_bavail * (double)info.f_bsize / (1 << 30);
        if (hint)
            finding_set(&finding, LEVEL_HINT, "%s is %s, %s", doctor->folder, name, hint);
        else if (free_space < 1)
            finding_set(&finding, LEVEL_HINT, "%s has %.2f GiB free: a checkpoint has 12 bytes for each parameter",
                        doctor->folder, free_space);
        else
            finding_set(&finding, LEVEL_PASS, "%s is %s, %.1f GiB free", doctor->folder, name, free_space);
    }
    doctor_report(doctor, "file system", &finding);
}

static void path_of(const struct doctor *doctor, const char *what, int rank, char path[1024]) {
    snprintf(path, 1024, "%s/doctor-%s-%d.tmp", doctor->folder, what, rank);
}

/* 0, or errno */
static int write_whole(const char *path, int64_t bytes) {
    char *block = malloc(1 << 20);
    if (!block) FATAL("out of memory");
    memset(block, 0x5a, 1 << 20);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), error = file < 0 ? errno : 0;
    for (int64_t done = 0; done < bytes && !error;) {
        int64_t left = bytes - done;
        ssize_t wrote = write(file, block, (size_t)(left < 1 << 20 ? left : 1 << 20));
        if (wrote < 0)
            error = errno;
        else
            done += wrote;
    }
    if (!error && fsync(file)) error = errno;
    if (file >= 0) close(file);
    free(block);
    return error;
}

static void check_writing(struct doctor *doctor) {
    struct finding finding = {0};
    char path[1024];
    path_of(doctor, "rate", doctor->world->rank, path);
    comm_barrier(doctor->world);
    double from = clock_seconds();
    int error = write_whole(path, WRITTEN);
    double seconds = clock_seconds() - from;
    unlink(path);
    comm_allreduce(doctor->world, &seconds, 1, COMM_DOUBLE, COMM_MAX);
    double rate = (double)doctor->world->size * WRITTEN / seconds / 1e6;
    if (error)
        finding_set(&finding, LEVEL_FAIL, "%s: cannot write 64 MiB: %s", doctor->folder, strerror(error));
    else if (rate < 50)
        finding_set(&finding, LEVEL_HINT, "%.0f MB/s of all ranks together, with fsync: checkpoints take long", rate);
    else
        finding_set(&finding, LEVEL_PASS, "%.0f MB/s of all ranks together, with fsync", rate);
    doctor_report(doctor, "writing", &finding);
}

static void check_hdf5(struct doctor *doctor) {
    struct finding finding = {0};
    char path[1024];
    path_of(doctor, "hdf5", doctor->world->rank, path);
    struct h5_array array = {.name = "/parameters/a", .type = H5T_FLOAT32, .rank = 2, .shape = {3, 5}};
    struct h5_attribute attribute = {.name = "step", .kind = H5_INTEGER, .integer = 7};
    struct h5_contents written = {.arrays = &array, .n_arrays = 1, .attributes = &attribute, .n_attributes = 1}, found;
    enum status status = h5_create(path, &written);
    if (!status && truncate(path, written.bytes)) status = status_fail(STATUS_WRITE, "%s: %s", path, strerror(errno));
    if (!status) status = h5_read_contents(path, &found);
    if (status) {
        finding_set(&finding, LEVEL_FAIL, "%s", status_message());
        status_clear();
    } else {
        bool same = found.n_arrays == 1 && found.n_attributes == 1 && found.arrays[0].offset == array.offset &&
                    found.arrays[0].bytes == array.bytes && found.attributes[0].integer == 7;
        finding_set(&finding, same ? LEVEL_PASS : LEVEL_FAIL, "%s",
                    same ? "a file is read as it was written" : "a file is not read as it was written");
        h5_contents_free(&found);
    }
    unlink(path);
    doctor_report(doctor, "HDF5 file", &finding);
}

/* What rank 0 has written, opened here; -1: not there in time. */
static int open_seen(const char *path, double *seconds) {
    double from = clock_seconds();
    int file;
    while ((file = open(path, O_RDWR | O_CLOEXEC)) < 0 && clock_seconds() - from < PATIENCE) usleep(20000);
    *seconds = clock_seconds() - from;
    return file;
}

/* The lock of rank 0 must hold everywhere, or two jobs could write one run. */
static void check_lock(struct doctor *doctor, int64_t error, int held, int file) {
    struct finding finding = {0};
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (held >= 0 && fcntl(held, F_OFD_SETLK, &lock)) error = errno;
    comm_broadcast(doctor->world, &error, sizeof error, 0);
    bool taken = !error && file >= 0 && fcntl(file, F_OFD_SETLK, &lock) == 0;
    if (error)
        finding_set(&finding, LEVEL_HINT, "%s: none (%s): nothing keeps two jobs from writing one run", doctor->folder,
                    strerror((int)error));
    else if (taken)
        finding_set(&finding, LEVEL_HINT,
                    "that of rank 0 does not hold here: nothing keeps two jobs from writing one run");
    else
        finding_set(&finding, LEVEL_PASS, "one that rank 0 holds is refused to the others");
    doctor_report(doctor, "file locks", &finding);
}

/* Rank 0: the file has its length, and is in the cache here before the others write. 0, or errno. */
static int fill_pages(const char *path, size_t bytes) {
    char *zeros = calloc(1, bytes);
    if (!zeros) FATAL("out of memory");
    int file = open(path, O_RDWR | O_CLOEXEC), error = 0;
    errno = EIO; /* of what is written or read in part */
    if (file < 0 || pwrite(file, zeros, bytes, 0) != (ssize_t)bytes || fsync(file) ||
        pread(file, zeros, bytes, 0) != (ssize_t)bytes)
        error = errno;
    if (file >= 0) close(file);
    free(zeros);
    return error;
}

static void make_piece(char piece[PIECE], int64_t i) { memset(piece, (int)(1 + i % 127), PIECE); }

/* Each `step`th piece from the first. 0, or errno. */
static int write_pieces(const char *path, int64_t first, int64_t step, int64_t pieces) {
    char piece[PIECE];
    int file = open(path, O_RDWR | O_CLOEXEC), error = file < 0 ? errno : 0;
    for (int64_t i = first; i < pieces && !error; i += step) {
        make_piece(piece, i);
        errno = EIO;
        if (pwrite(file, piece, PIECE, i * PIECE) != PIECE) error = errno;
    }
    if (!error && fsync(file)) error = errno;
    if (file >= 0) close(file);
    return error;
}

static int64_t lost_pieces(const char *path, int64_t pieces) {
    char piece[PIECE], found[PIECE];
    int64_t lost = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    for (int64_t i = 0; i < pieces; ++i) {
        make_piece(piece, i);
        lost += file < 0 || pread(file, found, PIECE, i * PIECE) != PIECE || memcmp(piece, found, PIECE) != 0;
    }
    if (file >= 0) close(file);
    return lost;
}

/* A checkpoint is one file that all ranks write, and where their parts meet they share a page. */
static void check_pages(struct doctor *doctor, const char *path, bool seen) {
    struct finding finding = {0};
    struct comm *world = doctor->world;
    int64_t all_see = seen, pieces = (int64_t)PIECES * world->size, lost = 0, failed;
    struct statfs info = {0};
    comm_allreduce(world, &all_see, 1, COMM_INT64, COMM_MIN);
    int error = all_see && world->rank == 0 ? fill_pages(path, (size_t)pieces * PIECE) : 0;
    comm_barrier(world);
    if (all_see && !error) error = write_pieces(path, world->rank, world->size, pieces);
    failed = error;
    comm_allreduce(world, &failed, 1, COMM_INT64, COMM_MAX);
    if (all_see && !failed) lost = lost_pieces(path, pieces);
    if (!all_see)
        finding_set(&finding, LEVEL_HINT, "not tried: no folder that all ranks share");
    else if (error)
        finding_set(&finding, LEVEL_FAIL, "%s: cannot write a file that others write too: %s", doctor->folder,
                    strerror(error));
    else if (lost)
        finding_set(
            &finding, LEVEL_FAIL,
            "%s is %s: %d of %d pieces lost that several ranks wrote into the same pages of a file: set run.dir "
            "to a folder on another file system",
            doctor->folder, statfs(path, &info) ? "unknown" : system_of(&info)->name, (int)lost, (int)pieces);
    else
        finding_set(&finding, LEVEL_PASS, "what ranks write into the same page of a file is all there");
    doctor_report(doctor, "shared pages", &finding);
}

static void check_shared(struct doctor *doctor) {
    struct finding finding = {0};
    char path[1024];
    double seconds = 0;
    path_of(doctor, "shared", 0, path);
    bool first = doctor->world->rank == 0;
    int held = first ? open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    int error = first && held < 0 ? errno : 0;
    comm_barrier(doctor->world);
    int file = open_seen(path, &seconds);
    if (error)
        finding_set(&finding, LEVEL_FAIL, "%s: cannot make a file: %s", doctor->folder, strerror(error));
    else if (file < 0)
        finding_set(&finding, LEVEL_FAIL, "%s: what rank 0 writes is not seen here: use a folder that all nodes share",
                    doctor->folder);
    else if (seconds > 2)
        finding_set(&finding, LEVEL_HINT, "what rank 0 writes is seen after %.1f s: a slow cache of the file system",
                    seconds);
    else
        finding_set(&finding, LEVEL_PASS, "all ranks see what rank 0 writes");
    doctor_report(doctor, "shared folder", &finding);
    check_pages(doctor, path, file >= 0);
    check_lock(doctor, error, held, file);
    comm_barrier(doctor->world);
    if (file >= 0) close(file);
    if (held >= 0) close(held);
    if (first) unlink(path);
}

void doctor_folder(struct doctor *doctor) {
    check_system(doctor);
    check_writing(doctor);
    check_hdf5(doctor);
    check_shared(doctor);
}
