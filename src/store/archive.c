#include "store/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/block.h"
#include "base/clock.h"
#include "base/log.h"
#include "store/h5_private.h"
#include "store/slabs.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays are little endian");
enum {
    PIECE = 1 << 18 /* bytes read at once: so few that they are still in the cache when they are summed */,
    BROADCAST = 1 << 30,
    MOST_SLABS = 1 << 26
};
static const int64_t most_rest = 1 << 28; /* bytes that no array holds */

struct archive {
    struct comm *comm, *own; /* own: NULL where comm is borrowed */
    int fd;
    struct h5_contents contents;
    bool has_checksums;
    struct slab rest, *slabs; /* slabs [n_slabs] by offset */
    int64_t n_slabs;
    XXH3_state_t *state;
    char *piece; /* [PIECE] */
    char path[];
};

const char *archive_path(const struct archive *a) { return a->path; }
const struct h5_contents *archive_contents(const struct archive *a) { return &a->contents; }
bool archive_has_checksums(const struct archive *a) { return a->has_checksums; }
int64_t archive_slabs(const struct archive *a) { return a->n_slabs; }

/* ---- Reading bytes ---- */

/* Which array holds the byte. */
static const char *name_at(const struct archive *a, int64_t offset) {
    for (int i = 0; i < a->contents.n_arrays; ++i) {
        const struct h5_array *array = &a->contents.arrays[i];
        if (array->bytes && offset >= array->offset && offset < array->offset + array->bytes) return array->name;
    }
    return "?";
}

static enum status read_at(const struct archive *a, void *to, int64_t bytes, int64_t offset) {
    while (bytes > 0) {
        ssize_t got = pread(a->fd, to, (size_t)bytes, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return status_fail(got < 0 ? STATUS_INTERNAL : STATUS_CHECKPOINT, "%s: %s: cannot read: %s", a->path,
                               name_at(a, offset), got < 0 ? strerror(errno) : "the file has become shorter");
        to = (char *)to + got;
        bytes -= got;
        offset += got;
    }
    return STATUS_OK;
}

static enum status wrong_sum(const struct archive *a, const struct slab *slab, uint64_t found) {
    const char *name = slab->offset < 0 ? "attributes and description" : name_at(a, slab->offset);
    char place[40] = "";
    if (slab->offset >= 0) snprintf(place, sizeof place, " from %lld on", (long long)slab->offset);
    return status_fail(STATUS_CHECKPOINT, "%s: %s: expected checksum %016llx of %lld bytes%s, found %016llx", a->path,
                       name, (unsigned long long)slab->sum, (long long)slab->bytes, place, (unsigned long long)found);
}

/* Bytes [from, to) of the file, as another type of floats or the same. */
struct wanted {
    int64_t from, to;
    enum h5_type stored, type;
    char *out;
};

/* The part of bytes [at, at + n) of the file that is wanted. */
static void take(const struct wanted *w, int64_t at, int64_t n, const char *piece) {
    int64_t from = at > w->from ? at : w->from, to = at + n < w->to ? at + n : w->to;
    int64_t size = h5_element_bytes(w->stored), count = (to - from) / size, first = (from - w->from) / size;
    const char *in = piece + (from - at);
    if (to <= from) return;
    if (w->stored == w->type) {
        memcpy(w->out + first * size, in, (size_t)(count * size));
        return;
    }
    for (int64_t i = 0; i < count; ++i) {
        float narrow;
        double wide;
        if (w->stored == H5T_FLOAT32) {
            memcpy(&narrow, in + i * size, sizeof narrow);
            ((double *)w->out)[first + i] = narrow;
        } else {
            memcpy(&wide, in + i * size, sizeof wide);
            ((float *)w->out)[first + i] = (float)wide;
        }
    }
}

/* A whole slab, against its checksum where it has one; what is wanted of it (NULL: nothing) goes out. Straight to its
 * place where it can. */
static enum status read_slab(const struct archive *a, const struct slab *slab, bool has_sum, const struct wanted *w) {
    XXH3_64bits_reset(a->state);
    for (int64_t at = slab->offset, end = at + slab->bytes, n; at < end; at += n) {
        n = end - at < PIECE ? end - at : PIECE;
        bool straight = w && w->stored == w->type && at >= w->from && at + n <= w->to;
        char *to = straight ? w->out + (at - w->from) : a->piece;
        TRY(read_at(a, to, n, at));
        if (has_sum) XXH3_64bits_update(a->state, to, (size_t)n);
        if (w && !straight) take(w, at, n, to);
    }
    uint64_t found = XXH3_64bits_digest(a->state);
    return has_sum && found != slab->sum ? wrong_sum(a, slab, found) : STATUS_OK;
}

/* ---- Opening ---- */

/* Rank 0 reads and checks the table. */
static enum status read_table(struct archive *a) {
    const struct h5_array *table = archive_find(a, SLABS_NAME);
    struct slab rest;
    if (!table) return STATUS_OK;
    if (table->type != H5T_INT64 || table->rank != 2 || table->shape[1] != SLAB_COLUMNS || table->shape[0] < 1 ||
        table->shape[0] > MOST_SLABS)
        return status_fail(STATUS_CHECKPOINT, "%s: " SLABS_NAME ": expected rows of %d integers, found something else",
                           a->path, SLAB_COLUMNS);
    a->slabs = malloc((size_t)table->bytes);
    if (!a->slabs)
        return status_fail(STATUS_CHECKPOINT, "%s: " SLABS_NAME ": expected a table that fits memory, found %lld bytes",
                           a->path, (long long)table->bytes);
    TRY(read_at(a, a->slabs, table->bytes, table->offset));
    a->has_checksums = true;
    a->rest = a->slabs[0];
    a->n_slabs = table->shape[0] - 1;
    memmove(a->slabs, a->slabs + 1, (size_t)a->n_slabs * sizeof *a->slabs);
    TRY(slabs_check(a->path, &a->contents, a->slabs, a->n_slabs));
    int64_t bytes = a->contents.bytes;
    for (int i = 0; i < a->contents.n_arrays; ++i) bytes -= a->contents.arrays[i].bytes;
    if (bytes > most_rest)
        return status_fail(STATUS_CHECKPOINT, "%s: expected at most %lld bytes beside the arrays, found %lld", a->path,
                           (long long)most_rest, (long long)bytes);
    int cause = slabs_sum_rest(a->fd, &a->contents, &rest);
    if (cause)
        return status_fail(cause == ENODATA ? STATUS_CHECKPOINT : STATUS_INTERNAL, "%s: cannot read: %s", a->path,
                           strerror(cause));
    if (a->rest.offset != rest.offset || a->rest.bytes != rest.bytes)
        return status_fail(STATUS_CHECKPOINT, "%s: " SLABS_NAME ": expected %lld bytes in the first row, found %lld",
                           a->path, (long long)rest.bytes, (long long)a->rest.bytes);
    return a->rest.sum == rest.sum ? STATUS_OK : wrong_sum(a, &a->rest, rest.sum);
}

static void broadcast(struct comm *comm, void *data, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += BROADCAST)
        comm_broadcast(comm, (char *)data + at, bytes - at < BROADCAST ? bytes - at : BROADCAST, 0);
}

/* What rank 0 has read. */
static void share(struct archive *a) {
    size_t size = 0;
    char *packed = a->comm->rank == 0 ? h5_pack(&a->contents, &size) : NULL;
    int64_t facts[] = {(int64_t)size, a->has_checksums, a->n_slabs, a->rest.bytes};
    comm_broadcast(a->comm, facts, sizeof facts, 0);
    if (!packed && !(packed = malloc((size_t)facts[0]))) FATAL("out of memory");
    broadcast(a->comm, packed, facts[0]);
    if (a->comm->rank) {
        if (!h5_unpack(&a->contents, packed, (size_t)facts[0])) FATAL("%s: not what rank 0 has sent", a->path);
        a->has_checksums = facts[1];
        a->n_slabs = facts[2];
        a->rest.bytes = facts[3];
        a->slabs = malloc((size_t)(a->n_slabs + 1) * sizeof *a->slabs);
        if (!a->slabs) FATAL("out of memory");
    }
    broadcast(a->comm, a->slabs, a->n_slabs * (int64_t)sizeof *a->slabs);
    free(packed);
}

/* The same file on every node, as far as its length tells. */
static enum status open_here(struct archive *a) {
    struct stat info;
    if (a->fd < 0) a->fd = open(a->path, O_RDONLY | O_CLOEXEC);
    if (a->fd < 0 || fstat(a->fd, &info))
        return status_fail(STATUS_INTERNAL, "%s: cannot open on rank %d: %s", a->path, a->comm->rank, strerror(errno));
    if (info.st_size == a->contents.bytes) return STATUS_OK;
    return status_fail(STATUS_CHECKPOINT, "%s: expected %lld bytes, found %lld on rank %d", a->path,
                       (long long)a->contents.bytes, (long long)info.st_size, a->comm->rank);
}

static enum status read_description(struct archive *a) {
    TRY(h5_read_contents(a->path, &a->contents));
    TRY(open_here(a));
    return read_table(a);
}

enum status archive_open(struct archive **out, const char *path, struct comm *comm) {
    struct archive *a = calloc(1, sizeof *a + strlen(path) + 1);
    if (!a) FATAL("out of memory");
    memcpy(a->path, path, strlen(path) + 1);
    a->own = comm ? NULL : comm_self_new();
    a->comm = comm ? comm : a->own;
    a->fd = -1;
    a->state = XXH3_createState();
    a->piece = malloc(PIECE);
    if (!a->state || !a->piece) FATAL("out of memory");
    enum status status = comm_agree(a->comm, a->comm->rank ? STATUS_OK : read_description(a));
    if (!status) {
        share(a);
        status = comm_agree(a->comm, open_here(a));
    }
    *out = status ? NULL : a;
    if (status) archive_close(a);
    return status;
}

void archive_close(struct archive *a) {
    if (!a) return;
    if (a->fd >= 0) close(a->fd);
    h5_contents_free(&a->contents);
    comm_free(a->own);
    XXH3_freeState(a->state);
    free(a->slabs);
    free(a->piece);
    free(a);
}

/* ---- Arrays ---- */

static int compare_name(const void *name, const void *array) {
    return strcmp(name, ((const struct h5_array *)array)->name);
}

const struct h5_array *archive_find(const struct archive *a, const char *name) {
    if (!a->contents.n_arrays) return NULL;
    return bsearch(name, a->contents.arrays, (size_t)a->contents.n_arrays, sizeof *a->contents.arrays, compare_name);
}

/* "[3, 4]"; "[]" for a scalar. */
static const char *format_shape(char out[128], int rank, const int64_t *shape) {
    int n = snprintf(out, 128, "[");
    for (int i = 0; i < rank; i++) n += snprintf(out + n, 128 - (size_t)n, i ? ", %lld" : "%lld", (long long)shape[i]);
    snprintf(out + n, 128 - (size_t)n, "]");
    return out;
}

static enum status check_array(const struct archive *a, const char *name, const struct h5_array *found,
                               enum h5_type type, int rank, const int64_t *shape) {
    char one[128], other[128];
    if (!found) return status_fail(STATUS_CHECKPOINT, "%s: %s: expected an array, found none", a->path, name);
    bool floats = type == H5T_FLOAT32 || type == H5T_FLOAT64;
    if (floats ? found->type == H5T_INT64 || found->type == H5T_UINT8 : found->type != type)
        return status_fail(STATUS_CHECKPOINT, "%s: %s: expected %s, found values of another type", a->path, name,
                           floats              ? "floating-point numbers"
                           : type == H5T_INT64 ? "integers"
                                               : "bytes");
    bool same = found->rank == rank && (!rank || !memcmp(found->shape, shape, (size_t)rank * sizeof *shape));
    if (same) return STATUS_OK;
    return status_fail(STATUS_CHECKPOINT, "%s: %s: expected shape %s, found %s", a->path, name,
                       format_shape(one, rank, shape), format_shape(other, found->rank, found->shape));
}

/* The first slab that ends behind `offset`. */
static int64_t slab_at(const struct archive *a, int64_t offset) {
    int64_t low = 0, high = a->n_slabs;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (a->slabs[middle].offset + a->slabs[middle].bytes > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

enum status archive_read(struct archive *a, const char *name, enum h5_type type, int rank, const int64_t *shape,
                         int64_t first, int64_t count, void *out) {
    const struct h5_array *found = archive_find(a, name);
    TRY(check_array(a, name, found, type, rank, shape));
    CHECK(first >= 0 && count >= 0 && first + count <= (rank ? shape[0] : 1));
    int64_t row = h5_row_bytes(found), from = found->offset + first * row;
    struct wanted w = {.from = from, .to = from + count * row, .stored = found->type, .type = type, .out = out};
    if (w.from == w.to) return STATUS_OK;
    if (!a->has_checksums || !strcmp(name, SLABS_NAME))
        return read_slab(a, &(struct slab){.offset = w.from, .bytes = w.to - w.from}, false, &w);
    for (int64_t i = slab_at(a, w.from); i < a->n_slabs && a->slabs[i].offset < w.to; ++i)
        TRY(read_slab(a, &a->slabs[i], true, &w));
    return STATUS_OK;
}

/* ---- Attributes ---- */

/* NULL, and the status recorded, where there is none of that kind. */
static const struct h5_attribute *find_attribute(const struct archive *a, const char *name, enum h5_value kind) {
    static const char *const expected[] = {[H5_INTEGER] = "an integer", [H5_REAL] = "a number", [H5_TEXT] = "text"};
    const char *found = "none";
    for (int i = 0; i < a->contents.n_attributes; ++i) {
        const struct h5_attribute *attribute = &a->contents.attributes[i];
        if (strcmp(attribute->name, name) != 0) continue;
        if (attribute->kind == kind) return attribute;
        found = "something else";
    }
    status_fail(STATUS_CHECKPOINT, "%s: attribute %s: expected %s, found %s", a->path, name, expected[kind], found);
    return NULL;
}

enum status archive_read_int(struct archive *a, const char *name, int64_t *value) {
    const struct h5_attribute *found = find_attribute(a, name, H5_INTEGER);
    if (found) *value = found->integer;
    return found ? STATUS_OK : STATUS_CHECKPOINT;
}

enum status archive_read_real(struct archive *a, const char *name, double *value) {
    const struct h5_attribute *found = find_attribute(a, name, H5_REAL);
    if (found) *value = found->real;
    return found ? STATUS_OK : STATUS_CHECKPOINT;
}

enum status archive_read_text(struct archive *a, const char *name, const char **value) {
    const struct h5_attribute *found = find_attribute(a, name, H5_TEXT);
    if (found) *value = found->text;
    return found ? STATUS_OK : STATUS_CHECKPOINT;
}

/* ---- All of it ---- */

/* This rank's share. */
static enum status verify_slabs(struct archive *a, int64_t first, int64_t count, int64_t *bytes) {
    double start = clock_seconds(), told = start;
    enum status status = STATUS_OK;
    for (int64_t i = first; i < first + count && !status; ++i) {
        const struct slab *slab = &a->slabs[i];
        status = read_slab(a, slab, true, NULL);
        *bytes += slab->bytes;
        double now = clock_seconds();
        if (now - told < 0.5) continue;
        log_progress("%s: %.0f%%, %.2f GB/s on each rank", a->path, 100 * (double)(i + 1 - first) / (double)count,
                     1e-9 * (double)*bytes / (now - start));
        told = now;
    }
    return status;
}

/* archive_open has checked the rest. */
enum status archive_verify(struct archive *a, int64_t *bytes) {
    enum status status = STATUS_OK;
    int rank = a->comm->rank, size = a->comm->size;
    *bytes = rank ? 0 : a->rest.bytes;
    if (!a->has_checksums)
        status = status_fail(STATUS_CHECKPOINT, "%s: expected " SLABS_NAME ", found none", a->path);
    else
        status = verify_slabs(a, block_first(a->n_slabs, size, rank), block_count(a->n_slabs, size, rank), bytes);
    comm_allreduce(a->comm, bytes, 1, COMM_INT64, COMM_SUM);
    return comm_agree(a->comm, status);
}
