/* Small files of both formats of HDF5, changed at random again and again: whatever comes of it is read, or refused in
 * one line that names the file. A changed file that had checksums is never found whole. Usage: fuzz SECONDS [SEED] */
#include <fcntl.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/archive.h"
#include "store/h5_private.h"
#include "store/snapshot.h"

/* HDF5 does not come to the end of some: not to be waited for here. */
void fault_point(const char *where) {
    if (!strcmp(where, "archive.child")) setrlimit(RLIMIT_CPU, &(struct rlimit){1, 2});
}

enum { CORPUS = 3, MOST = 1 << 16 };
static const char *const path = "fuzz.h5";

struct bytes {
    size_t size;
    char data[MOST];
};
static struct bytes corpus[CORPUS];
static uint64_t state;
static int failures;

static uint64_t below(uint64_t limit) {
    state = hash_splitmix64(state);
    return state % limit;
}

/* ---- What it begins with ---- */

static void load(struct bytes *bytes, const char *from) {
    int fd = open(from, O_RDONLY);
    ssize_t size = fd < 0 ? -1 : read(fd, bytes->data, sizeof bytes->data);
    if (size <= 0 || size == MOST) FATAL("%s: expected a small file", from);
    bytes->size = (size_t)size;
    close(fd);
}

static void write_ours(void) {
    struct snapshot *snapshot = snapshot_new(NULL);
    const char *names[] = {"/parameters/a", "/parameters/layer.0.b", "/moments/first/a", "/vocabulary"};
    for (int i = 0; i < 4; ++i) {
        int64_t shape[] = {5 + i, 3}, n = shape[0] * shape[1];
        enum h5_type type = (enum h5_type)(i % 3);
        char *at = snapshot_put(snapshot, names[i], type, 2, shape, 0, shape[0]);
        for (int64_t j = 0; j < n * h5_element_bytes(type); ++j) at[j] = (char)(j * 7);
    }
    snapshot_put_int(snapshot, "step", 12);
    snapshot_put_real(snapshot, "best_valid", 0.5);
    snapshot_put_text(snapshot, "configuration", "{\"model.layers\": 2}");
    if (snapshot_write(snapshot, path)) FATAL("%s", status_message());
    snapshot_free(snapshot);
    load(&corpus[0], path);
}

/* With or without groups that are tables; with a text on the heap. */
static void write_foreign(struct bytes *bytes, H5F_libver_t version) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), text = H5Tcopy(H5T_C_S1), one = H5Screate(H5S_SCALAR);
    H5Pset_libver_bounds(access, version, H5F_LIBVER_LATEST);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    H5Tset_size(text, H5T_VARIABLE);
    hid_t attribute = H5Acreate2(file, "configuration", text, one, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, text, &(const char *){"a text of variable length"});
    H5Aclose(attribute);
    H5Gclose(H5Gcreate2(file, "/group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    for (int i = 0; i < 12; ++i) {
        char name[32];
        double values[12] = {i};
        snprintf(name, sizeof name, "%s/array.%d", i % 2 ? "/group" : "", i);
        hid_t space = H5Screate_simple(2, (hsize_t[]){3, 4}, NULL);
        hid_t set = H5Dcreate2(file, name, H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
        H5Dclose(set);
        H5Sclose(space);
    }
    H5Sclose(one);
    H5Tclose(text);
    H5Pclose(access);
    if (H5Fclose(file) < 0) FATAL("cannot write %s", path);
    load(bytes, path);
}

/* ---- Changes ---- */

static void change(struct bytes *b) {
    static const uint64_t numbers[] = {0, 1, 127, 255, 65535, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX, 1ull << 60};
    size_t at = below(b->size), length = 1 + below(16);
    const struct bytes *other = &corpus[below(CORPUS)];
    if (at + length > b->size) length = b->size - at;
    switch (below(7)) {
    case 0: b->data[at] ^= (char)(1u << below(8)); break;
    case 1: b->data[at] = (char)below(256); break;
    case 2: memcpy(b->data + at, &numbers[below(10)], length < 8 ? length : (size_t)1 << below(4)); break;
    case 3: memmove(b->data + at, b->data + below(b->size - length + 1), length); break;
    case 4: memset(b->data + at, (int)below(2) * 255, length); break;
    case 5: memcpy(b->data + at, other->data + below(other->size - 16), length); break;
    default:
        if (below(8)) break;
        b->size = 1 + below(b->size); /* cut, or with zeros behind */
    }
}

/* ---- What is made of it ---- */

static void read_all(struct archive *archive, enum status *status) {
    const struct h5_contents *contents = archive_contents(archive);
    for (int i = 0; i < contents->n_arrays && !*status; ++i) {
        const struct h5_array *a = &contents->arrays[i];
        int64_t rows = a->rank ? a->shape[0] : 1;
        double *values = malloc((size_t)(a->bytes / h5_element_bytes(a->type) + 1) * sizeof *values);
        if (!values) FATAL("out of memory");
        *status = archive_read(archive, a->name, a->type == H5T_INT64 ? H5T_INT64 : H5T_FLOAT64, a->rank, a->shape, 0,
                               rows, values);
        free(values);
    }
}

/* 1 where it was read. */
static int try_file(const struct bytes *bytes, bool must_fail) {
    struct archive *archive;
    int64_t verified;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0 || write(fd, bytes->data, bytes->size) != (ssize_t)bytes->size) FATAL("cannot write %s", path);
    close(fd);
    enum status status = archive_open(&archive, path, NULL);
    if (!status) read_all(archive, &status);
    if (!status && (must_fail || archive_has_checksums(archive))) {
        status = archive_verify(archive, &verified);
        if (!status && must_fail) {
            printf("a changed file is found whole: %s\n", path);
            failures++;
        }
    }
    archive_close(archive);
    const char *said = status_message();
    if (status && (status != STATUS_CHECKPOINT || strncmp(said, path, strlen(path)) != 0 || strchr(said, '\n'))) {
        printf("status %d: '%s'\n", (int)status, said);
        failures++;
    }
    status_clear();
    return !status;
}

/* The answer of a child that is no longer sane. */
static void try_description(void) {
    struct archive *archive;
    struct h5_contents contents;
    size_t size;
    load(&corpus[0], path);
    if (archive_open(&archive, path, NULL)) FATAL("%s", status_message());
    char *packed = h5_pack(archive_contents(archive), &size);
    struct bytes *changed = malloc(sizeof *changed);
    if (!changed) FATAL("out of memory");
    for (int i = 0; i < 20000; ++i) {
        changed->size = size;
        memcpy(changed->data, packed, size);
        for (uint64_t n = 1 + below(4); n > 0; --n) change(changed);
        if (h5_unpack(&contents, changed->data, changed->size)) h5_check(path, &contents);
        h5_contents_free(&contents);
        status_clear();
    }
    free(changed);
    free(packed);
    archive_close(archive);
}

int main(int argc, char **argv) {
    if (argc < 2) FATAL("usage: fuzz SECONDS [SEED]");
    double start = clock_seconds(), seconds = atof(argv[1]);
    int64_t files = 0, read_well = 0;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    write_foreign(&corpus[1], H5F_LIBVER_EARLIEST);
    write_foreign(&corpus[2], H5F_LIBVER_LATEST);
    write_ours();
    try_description();
    struct bytes *changed = malloc(sizeof *changed);
    if (!changed) FATAL("out of memory");
    for (; clock_seconds() - start < seconds; ++files) {
        const struct bytes *from = &corpus[below(CORPUS)];
        *changed = *from;
        for (uint64_t n = 1 + below(6); n > 0; --n) change(changed);
        bool same = changed->size == from->size && !memcmp(changed->data, from->data, from->size);
        read_well += try_file(changed, from == &corpus[0] && !same);
    }
    free(changed);
    printf("%lld files, %lld of them read; %d wrong\n", (long long)files, (long long)read_well, failures);
    return failures || files < 20;
}
