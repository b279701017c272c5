#include "store/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/h5_private.h"
#include "store/slabs.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays are little endian");
enum { ALIGN = 64 /* bytes, of rows in memory */, LARGE_PAGE = 1 << 21 };

/* Rows that lie together. */
struct rows {
    int array;
    int64_t first, count;
    int64_t at; /* in snapshot.bytes */
};

struct snapshot {
    struct comm *comm, *own; /* own: NULL where comm is borrowed */
    struct h5_contents contents;
    int64_t array_room, attribute_room;
    int *places; /* [n_places] open addressing by name: index of an array, or -1 */
    int64_t n_places;
    struct rows *rows;
    int64_t n_rows, rows_room;
    char *bytes;
    int64_t used, room, held; /* held: without what lies between rows */

    /* While it is written. */
    char path[PATH_MAX], temporary[PATH_MAX];
    int64_t first_slab, slabs; /* this rank's rows of the table */
    struct slab rest;          /* rank 0: its first row */
    char error[PATH_MAX + 128];
};

struct snapshot *snapshot_new(struct comm *comm) {
    struct snapshot *s = calloc(1, sizeof *s);
    if (!s) FATAL("out of memory");
    s->own = comm ? NULL : comm_self_new();
    s->comm = comm ? comm : s->own;
    return s;
}

void snapshot_free(struct snapshot *s) {
    if (!s) return;
    h5_contents_free(&s->contents);
    comm_free(s->own);
    free(s->places);
    free(s->rows);
    if (s->bytes) munmap(s->bytes, (size_t)s->room);
    free(s);
}

void snapshot_clear(struct snapshot *s) {
    h5_contents_free(&s->contents);
    s->array_room = s->attribute_room = 0;
    for (int64_t i = 0; i < s->n_places; ++i) s->places[i] = -1;
    s->n_rows = s->used = s->held = 0;
}

int64_t snapshot_bytes(const struct snapshot *s) { return s->held; }

/* ---- What is put ---- */

/* Where the name stands, or would. */
static int *place_of(struct snapshot *s, const char *name) {
    int64_t at = hash_string(name) % (uint64_t)s->n_places;
    while (s->places[at] >= 0 && strcmp(s->contents.arrays[s->places[at]].name, name) != 0) at = (at + 1) % s->n_places;
    return &s->places[at];
}

static void widen_places(struct snapshot *s) {
    if (2 * (s->contents.n_arrays + 1) <= s->n_places) return;
    free(s->places);
    s->n_places = 4 * (s->contents.n_arrays + 16);
    s->places = malloc((size_t)s->n_places * sizeof *s->places);
    if (!s->places) FATAL("out of memory");
    for (int64_t i = 0; i < s->n_places; ++i) s->places[i] = -1;
    for (int i = 0; i < s->contents.n_arrays; ++i) *place_of(s, s->contents.arrays[i].name) = i;
}

static struct h5_array *add_array(struct snapshot *s, const char *name, enum h5_type type, int rank,
                                  const int64_t *shape) {
    struct h5_contents *contents = &s->contents;
    struct h5_array array = {.type = type, .rank = rank, .offset = -1};
    CHECK(rank >= 0 && rank <= H5_MAX_RANK && name[0] == '/' && strlen(name) < H5_MAX_NAME);
    memcpy(array.name, name, strlen(name) + 1);
    for (int i = 0; i < rank; ++i) array.shape[i] = shape[i];
    contents->arrays = h5_grow(contents->arrays, &s->array_room, contents->n_arrays + 1, sizeof array);
    contents->arrays[contents->n_arrays] = array;
    return &contents->arrays[contents->n_arrays++];
}

/* From the kernel in large pages: a small page would cost as much as copying it. Moved without a copy. */
static void widen_bytes(struct snapshot *s, int64_t bytes) {
    if (bytes < s->room) return;
    int64_t room = (bytes + bytes / 2 + LARGE_PAGE) / LARGE_PAGE * LARGE_PAGE;
    void *memory = s->bytes ? mremap(s->bytes, (size_t)s->room, (size_t)room, MREMAP_MAYMOVE)
                            : mmap(NULL, (size_t)room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) FATAL("out of memory: %lld bytes for a snapshot", (long long)room);
    madvise(memory, (size_t)room, MADV_HUGEPAGE);
    s->bytes = memory;
    s->room = room;
}

void *snapshot_put(struct snapshot *s, const char *name, enum h5_type type, int rank, const int64_t *shape,
                   int64_t first, int64_t count) {
    widen_places(s);
    int *place = place_of(s, name);
    if (*place < 0) {
        *place = s->contents.n_arrays;
        add_array(s, name, type, rank, shape);
    }
    const struct h5_array *array = &s->contents.arrays[*place];
    CHECK(array->type == type && array->rank == rank && first >= 0 && count >= 0);
    CHECK(!rank || !memcmp(array->shape, shape, (size_t)rank * sizeof *shape));
    CHECK(first + count <= (rank ? shape[0] : 1));
    int64_t bytes = count * h5_row_bytes(array), at = (s->used + ALIGN - 1) / ALIGN * ALIGN;
    widen_bytes(s, at + bytes);
    s->used = at + bytes;
    s->held += bytes;
    if (bytes) {
        s->rows = h5_grow(s->rows, &s->rows_room, s->n_rows + 1, sizeof *s->rows);
        s->rows[s->n_rows++] = (struct rows){*place, first, count, at};
    }
    return s->bytes + at;
}

static struct h5_attribute *add_attribute(struct snapshot *s, const char *name, enum h5_value kind) {
    struct h5_contents *contents = &s->contents;
    struct h5_attribute a = {.kind = kind};
    CHECK(strlen(name) < sizeof a.name);
    memcpy(a.name, name, strlen(name) + 1);
    contents->attributes = h5_grow(contents->attributes, &s->attribute_room, contents->n_attributes + 1, sizeof a);
    contents->attributes[contents->n_attributes] = a;
    return &contents->attributes[contents->n_attributes++];
}

void snapshot_put_int(struct snapshot *s, const char *name, int64_t value) {
    add_attribute(s, name, H5_INTEGER)->integer = value;
}

void snapshot_put_real(struct snapshot *s, const char *name, double value) {
    add_attribute(s, name, H5_REAL)->real = value;
}

void snapshot_put_text(struct snapshot *s, const char *name, const char *value) {
    struct h5_attribute *a = add_attribute(s, name, H5_TEXT);
    if (!(a->text = strdup(value))) FATAL("out of memory");
}

/* ---- Begin ---- */

/* Rows of a slab, but for the last one of a stretch. */
static int64_t slab_rows(const struct h5_array *array) {
    int64_t row = h5_row_bytes(array);
    return row < SLAB_BYTES ? SLAB_BYTES / row : 1;
}

static int64_t count_slabs(const struct snapshot *s) {
    int64_t slabs = 0;
    for (int64_t i = 0; i < s->n_rows; ++i) {
        int64_t most = slab_rows(&s->contents.arrays[s->rows[i].array]);
        slabs += (s->rows[i].count + most - 1) / most;
    }
    return slabs;
}

/* Tells this rank's slabs from the others' and adds the table. All ranks must have named the same arrays, and put each
 * row once. */
static void add_table(struct snapshot *s) {
    enum { SLABS, BYTES, NAMES, FACTS };
    int64_t whole = 0, bytes = 0, names = 0, *all = malloc((size_t)(s->comm->size * FACTS) * sizeof *all);
    if (!all) FATAL("out of memory");
    for (int i = 0; i < s->contents.n_arrays; ++i) {
        struct h5_array *array = &s->contents.arrays[i];
        array->bytes = h5_row_bytes(array) * (array->rank ? array->shape[0] : 1);
        whole += array->bytes;
        names = (int64_t)hash_bytes(array, sizeof *array, (uint64_t)names);
    }
    s->slabs = count_slabs(s);
    comm_allgather(s->comm, all, (int64_t[]){s->slabs, s->held, names}, FACTS);
    int64_t table[] = {1, SLAB_COLUMNS};
    for (int rank = 0; rank < s->comm->size; ++rank) {
        if (rank == s->comm->rank) s->first_slab = table[0];
        table[0] += all[rank * FACTS + SLABS];
        bytes += all[rank * FACTS + BYTES];
        CHECK(all[rank * FACTS + NAMES] == names);
    }
    CHECK(bytes == whole);
    free(all);
    add_array(s, SLABS_NAME, H5T_INT64, 2, table);
}

/* Takes the disk's space for the whole file: a full disk shows here, before there is anything to lose. Some network
 * file systems cannot. */
static int take_space(int fd, int64_t bytes) {
    int cause;
    do {
        cause = fallocate(fd, 0, 0, bytes) ? errno : 0;
    } while (cause == EINTR);
    return cause == EOPNOTSUPP || cause == ENOSYS ? 0 : cause;
}

/* Of rank 0. */
static enum status lay_out(struct snapshot *s) {
    TRY(h5_create(s->temporary, &s->contents));
    FAULT_POINT("checkpoint.begin");
    int64_t bytes = s->contents.bytes;
    int fd = open(s->temporary, O_RDWR | O_CLOEXEC), cause = fd < 0 ? errno : take_space(fd, bytes);
    if (cause)
        status_fail(STATUS_WRITE, "%s: cannot take %lld bytes: %s", s->temporary, (long long)bytes, strerror(cause));
    else if ((cause = slabs_sum_rest(fd, &s->contents, &s->rest)))
        status_fail(STATUS_WRITE, "%s: cannot read back: %s", s->temporary, strerror(cause));
    /* A client of a network file system writes whole pages that it knows; of this file other nodes write parts. */
    if (!cause && fsync(fd) == 0) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (fd >= 0) close(fd);
    return cause ? STATUS_WRITE : STATUS_OK;
}

static enum status lay_out_or_nothing(struct snapshot *s) {
    enum status status = lay_out(s);
    if (status) unlink(s->temporary);
    return status;
}

static void share_offsets(struct snapshot *s) {
    int n = s->contents.n_arrays;
    int64_t *offsets = malloc((size_t)n * sizeof *offsets);
    if (!offsets) FATAL("out of memory");
    for (int i = 0; i < n; ++i) offsets[i] = s->contents.arrays[i].offset;
    comm_broadcast(s->comm, offsets, n * (int64_t)sizeof *offsets, 0);
    for (int i = 0; i < n; ++i) s->contents.arrays[i].offset = offsets[i];
    free(offsets);
}

enum status snapshot_begin(struct snapshot *s, const char *path) {
    CHECK(strlen(path) + 5 < sizeof s->path);
    snprintf(s->path, sizeof s->path, "%s", path);
    snprintf(s->temporary, sizeof s->temporary, "%.*s.tmp", PATH_MAX - 5, path);
    s->error[0] = '\0';
    add_table(s);
    TRY(comm_agree(s->comm, s->comm->rank ? STATUS_OK : lay_out_or_nothing(s)));
    share_offsets(s);
    return STATUS_OK;
}

/* ---- Fill: possibly in another thread, where status_fail is not for use ---- */

static bool failed(struct snapshot *s, const char *what) {
    char cause[128];
    const char *text = strerror_r(errno, cause, sizeof cause);
    snprintf(s->error, sizeof s->error, "%s: cannot %s: %s", s->temporary, what, text);
    return false;
}

static bool write_at(struct snapshot *s, int fd, const void *bytes, int64_t size, int64_t offset) {
    while (size > 0) {
        ssize_t written = pwrite(fd, bytes, (size_t)size, offset);
        if (written < 0 && errno == EINTR) continue;
        if (written == 0) errno = ENOSPC;
        if (written <= 0) return failed(s, "write");
        bytes = (const char *)bytes + written;
        size -= written;
        offset += written;
    }
    return true;
}

/* Slab by slab; *table moves on. */
static bool write_rows(struct snapshot *s, int fd, const struct rows *rows, struct slab **table) {
    const struct h5_array *array = &s->contents.arrays[rows->array];
    int64_t row = h5_row_bytes(array), most = slab_rows(array), count;
    for (int64_t i = 0; i < rows->count; i += count) {
        const char *from = s->bytes + rows->at + i * row;
        count = rows->count - i < most ? rows->count - i : most;
        struct slab slab = {.offset = array->offset + (rows->first + i) * row, .bytes = count * row};
        slab.sum = XXH3_64bits(from, (size_t)slab.bytes);
        FAULT_POINT("checkpoint.fill");
        if (!write_at(s, fd, from, slab.bytes, slab.offset)) return false;
        *(*table)++ = slab;
    }
    return true;
}

static bool write_all(struct snapshot *s, int fd, struct slab *table) {
    const struct h5_array *checksums = &s->contents.arrays[s->contents.n_arrays - 1];
    int64_t first = s->comm->rank ? s->first_slab : 0, row = sizeof *table;
    struct slab *at = table;
    if (s->comm->rank == 0) *at++ = s->rest;
    for (int64_t i = 0; i < s->n_rows; ++i)
        if (!write_rows(s, fd, &s->rows[i], &at)) return false;
    return write_at(s, fd, table, (at - table) * row, checksums->offset + first * row);
}

void snapshot_fill(struct snapshot *s) {
    struct slab *table = malloc((size_t)(s->slabs + 1) * sizeof *table);
    if (!table) {
        failed(s, "write");
        return;
    }
    int fd = open(s->temporary, O_WRONLY | O_CLOEXEC);
    bool good = fd >= 0 ? write_all(s, fd, table) : failed(s, "open");
    if (good) FAULT_POINT("checkpoint.sync");
    if (good && fsync(fd)) good = failed(s, "sync");
    if (fd >= 0 && close(fd) && good) failed(s, "close");
    free(table);
}

/* ---- End ---- */

/* Of rank 0. */
static enum status publish(const struct snapshot *s) {
    FAULT_POINT("checkpoint.rename");
    if (rename(s->temporary, s->path)) {
        status_fail(STATUS_WRITE, "%s: cannot rename to %s: %s", s->temporary, s->path, strerror(errno));
        unlink(s->temporary);
        return STATUS_WRITE;
    }
    FAULT_POINT("checkpoint.folder");
    if (files_sync_entry(s->path)) return STATUS_OK;
    return status_fail(STATUS_WRITE, "%s: cannot sync its folder: %s", s->path, strerror(errno));
}

enum status snapshot_end(struct snapshot *s) {
    FAULT_POINT("checkpoint.end");
    enum status status = s->error[0] ? status_fail(STATUS_WRITE, "%s", s->error) : STATUS_OK;
    status = comm_agree(s->comm, status);
    if (!status) return comm_agree(s->comm, s->comm->rank ? STATUS_OK : publish(s));
    if (s->comm->rank == 0) unlink(s->temporary);
    comm_barrier(s->comm); /* it is gone, for whoever asks */
    return status;
}

enum status snapshot_write(struct snapshot *s, const char *path) {
    TRY(snapshot_begin(s, path));
    snapshot_fill(s);
    return snapshot_end(s);
}
