/* Files that nobody should have to fear: each is refused in one line that names it, or read as what it is. */
#include <fcntl.h>
#include <hdf5.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "base/fault.h"
#include "sample.h"
#include "store/archive.h"
#include "store/h5_private.h"
#include "store/slabs.h"

static hid_t new_file(const char *path) {
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

/* An array, written with zeros unless it is too large; rank -1: a null space. Takes over the properties. */
static void add(hid_t file, const char *name, hid_t type, int rank, const hsize_t *shape, hid_t properties) {
    hid_t space = rank < 0 ? H5Screate(H5S_NULL) : rank ? H5Screate_simple(rank, shape, NULL) : H5Screate(H5S_SCALAR);
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    assert_true(set >= 0);
    char zeros[8192] = {0};
    hssize_t points = H5Sget_simple_extent_npoints(space);
    if (points > 0 && points <= 512 && H5Tis_variable_str(type) <= 0)
        assert_true(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros) >= 0);
    H5Dclose(set);
    H5Sclose(space);
    if (properties != H5P_DEFAULT) H5Pclose(properties);
}

static const hsize_t four_by_eight[] = {4, 8};

static void add_plain(hid_t file, const char *name) { add(file, name, H5T_IEEE_F32LE, 2, four_by_eight, H5P_DEFAULT); }

/* message: what follows the file's name, or of it the beginning where it ends in "..."; NULL: opened. */
static void expect_open(const char *path, const char *message) {
    struct archive *archive;
    char expected[400];
    enum status status = archive_open(&archive, path, NULL);
    if (!message) {
        if (status) fail_msg("%s", status_message());
        archive_close(archive);
        return;
    }
    snprintf(expected, sizeof expected, "%s: %s", path, message);
    size_t length = strlen(expected);
    if (!strcmp(expected + length - 3, "...")) length -= 3;
    if (status != STATUS_CHECKPOINT || strncmp(status_message(), expected, length) != 0)
        fail_msg("expected '%s', found status %d, '%s'", expected, (int)status, status_message());
    assert_null(strchr(status_message(), '\n'));
    status_clear();
}

/* Made by `make`, with a plain array beside it. */
static void expect_made(void (*make)(hid_t file), const char *message) {
    hid_t file = new_file("hostile.h5");
    add_plain(file, "/plain");
    make(file);
    assert_true(H5Fclose(file) >= 0);
    expect_open("hostile.h5", message);
}

/* ---- Links ---- */

static void soft_link(hid_t file) { H5Lcreate_soft("/plain", file, "/b", H5P_DEFAULT, H5P_DEFAULT); }
static void dangling_link(hid_t file) { H5Lcreate_soft("/nothing", file, "/b", H5P_DEFAULT, H5P_DEFAULT); }
static void external_link(hid_t file) { H5Lcreate_external("/etc/passwd", "/a", file, "/b", H5P_DEFAULT, H5P_DEFAULT); }
static void two_names(hid_t file) { H5Lcreate_hard(file, "/plain", file, "/b", H5P_DEFAULT, H5P_DEFAULT); }
static void cycle(hid_t file) {
    H5Gclose(H5Gcreate2(file, "/b", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Lcreate_hard(file, "/", file, "/b/again", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_hard(file, "/b", file, "/b/self", H5P_DEFAULT, H5P_DEFAULT);
}
static void named_type(hid_t file) {
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tcommit2(file, "/type", type, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Tclose(type);
}
static void long_name(hid_t file) {
    char name[200] = "/";
    memset(name + 1, 'a', sizeof name - 2);
    add_plain(file, name);
}
static void deep(hid_t file) {
    char name[256] = "";
    for (int i = 0; i < 80; ++i) {
        strcat(name, "/g");
        H5Gclose(H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    }
}
static void line_feed(hid_t file) { add_plain(file, "/a\nvqmoe: all is well"); }

static void test_links(void **state) {
    (void)state;
    const char *link = "/b: expected an array or a group, found a link to another place";
    expect_made(soft_link, link);
    expect_made(dangling_link, link);
    expect_made(external_link, link);
    expect_made(two_names, "/b: expected an object of one name, found one of several");
    expect_made(cycle, "/b: expected an object of one name, found one of several");
    expect_made(named_type, "/type: expected an array or a group, found an object of another kind");
    expect_made(long_name, "/: expected printable names of at most 127 bytes, found others");
    expect_made(line_feed, "/: expected printable names of at most 127 bytes, found others");
    expect_made(deep, "/g/g/g...");
}

/* ---- Layouts ---- */

static hid_t layout(void) { return H5Pcreate(H5P_DATASET_CREATE); }
static void external_bytes(hid_t file) {
    hid_t properties = layout();
    H5Pset_external(properties, "elsewhere.raw", 0, 128);
    add(file, "/b", H5T_IEEE_F32LE, 2, four_by_eight, properties);
}
static void deflated(hid_t file) {
    hid_t properties = layout();
    H5Pset_chunk(properties, 2, four_by_eight);
    H5Pset_deflate(properties, 6);
    add(file, "/b", H5T_IEEE_F32LE, 2, four_by_eight, properties);
}
static void compact(hid_t file) {
    hid_t properties = layout();
    H5Pset_layout(properties, H5D_COMPACT);
    add(file, "/b", H5T_IEEE_F32LE, 2, four_by_eight, properties);
}
static void late(hid_t file) { add(file, "/b", H5T_IEEE_F32LE, 1, (hsize_t[]){1000}, H5P_DEFAULT); }
static void huge(hid_t file) { add(file, "/b", H5T_IEEE_F32LE, 2, (hsize_t[]){1 << 30, 1 << 29}, H5P_DEFAULT); }
static void empty(hid_t file) { add(file, "/b", H5T_IEEE_F32LE, -1, NULL, H5P_DEFAULT); }
static void five_axes(hid_t file) { add(file, "/b", H5T_IEEE_F32LE, 5, (hsize_t[]){1, 2, 1, 2, 1}, H5P_DEFAULT); }

static void test_layouts(void **state) {
    (void)state;
    expect_made(external_bytes, "/b: expected contiguous values in this file, found those of another file");
    expect_made(deflated, "/b: expected contiguous values in this file, found another layout");
    expect_made(compact, "/b: expected contiguous values in this file, found another layout");
    expect_made(late, "/b: expected contiguous values in this file, found none");
    expect_made(huge, "/b: expected contiguous values in this file, found none");
    expect_made(empty, "/b: expected an array of at most 4 axes, found an empty one");
    expect_made(five_axes, "/b: expected an array of at most 4 axes, found more");
}

/* ---- Types ---- */

static void test_types(void **state) {
    (void)state;
    const char *message = "/b: expected little-endian float32, float64, int64 or uint8, found values of another type";
    hid_t compound = H5Tcreate(H5T_COMPOUND, 8), text = H5Tcopy(H5T_C_S1), fixed = H5Tcopy(H5T_C_S1);
    H5Tinsert(compound, "x", 0, H5T_IEEE_F32LE);
    H5Tset_size(text, H5T_VARIABLE);
    H5Tset_size(fixed, 8);
    hid_t opaque = H5Tcreate(H5T_OPAQUE, 8), list = H5Tvlen_create(H5T_IEEE_F32LE),
          array = H5Tarray_create2(H5T_IEEE_F32LE, 1, (hsize_t[]){3}), enumeration = H5Tenum_create(H5T_STD_I64LE);
    H5Tenum_insert(enumeration, "one", &(int64_t){1});
    const hid_t types[] = {H5T_IEEE_F32BE, H5T_STD_I64BE, H5T_STD_I32LE, H5T_STD_U64LE, compound,   text,
                           fixed,          opaque,        list,          array,         enumeration};
    for (size_t i = 0; i < sizeof types / sizeof *types; ++i) {
        hid_t file = new_file("hostile.h5");
        add(file, "/b", types[i], 1, (hsize_t[]){600}, H5P_DEFAULT);
        H5Fclose(file);
        expect_open("hostile.h5", message);
    }
}

/* ---- Attributes ---- */

static void add_attribute(hid_t at, const char *name, hid_t type, hsize_t count, const void *value) {
    hid_t space = count == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &count, NULL);
    hid_t id = H5Acreate2(at, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(id >= 0 && H5Awrite(id, type, value) >= 0);
    H5Aclose(id);
    H5Sclose(space);
}

/* What Python writes is read, and what has no meaning here is let be. */
static void test_attributes(void **state) {
    (void)state;
    hid_t file = new_file("hostile.h5"), text = H5Tcopy(H5T_C_S1), opaque = H5Tcreate(H5T_OPAQUE, 4);
    const char *said = "of variable length", *found;
    int64_t value;
    double number;
    H5Tset_size(text, H5T_VARIABLE);
    add_attribute(file, "text", text, 1, &said);
    add_attribute(file, "short", H5T_STD_I16BE, 1, &(int16_t){0x0700});
    add_attribute(file, "float", H5T_IEEE_F32LE, 1, &(float){0.5f});
    add_attribute(file, "list", H5T_STD_I64LE, 3, (int64_t[]){1, 2, 3});
    add_attribute(file, "opaque", opaque, 1, "abcd");
    add_plain(file, "/plain");
    hid_t set = H5Dopen2(file, "/plain", H5P_DEFAULT);
    add_attribute(set, "opaque", opaque, 1, "abcd");
    H5Dclose(set);
    H5Fclose(file);
    struct archive *archive;
    assert_int_equal(archive_open(&archive, "hostile.h5", NULL), STATUS_OK);
    assert_false(archive_has_checksums(archive));
    assert_int_equal(archive_contents(archive)->n_attributes, 3);
    assert_int_equal(archive_read_text(archive, "text", &found), STATUS_OK);
    assert_string_equal(found, said);
    assert_int_equal(archive_read_int(archive, "short", &value), STATUS_OK);
    assert_int_equal(value, 7);
    assert_int_equal(archive_read_real(archive, "float", &number), STATUS_OK);
    assert_true(number == 0.5);
    assert_int_equal(archive_verify(archive, &value), STATUS_CHECKPOINT);
    assert_string_equal(status_message(), "hostile.h5: expected /checksums, found none");
    status_clear();
    archive_close(archive);
}

static void test_many(void **state) {
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    enum { LONG = (1 << 24) + 2, MANY = 10000 }; /* slow */
#else
    enum { LONG = (1 << 24) + 2, MANY = 100000 };
#endif
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), text = H5Tcopy(H5T_C_S1);
    H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    hid_t file = H5Fcreate("hostile.h5", H5F_ACC_TRUNC, H5P_DEFAULT, access);
    for (int i = 0; i < MANY; ++i) {
        char name[32];
        snprintf(name, sizeof name, "a%d", i);
        add_attribute(file, name, H5T_STD_I64LE, 1, &(int64_t){i});
    }
    H5Fclose(file);
    expect_open("hostile.h5", "/: expected at most 4096 attributes, found more");
    file = H5Fcreate("hostile.h5", H5F_ACC_TRUNC, H5P_DEFAULT, access);
    for (int i = 0; i < MANY; ++i) {
        char name[32];
        snprintf(name, sizeof name, "/a%d", i);
        add(file, name, H5T_STD_I64LE, 0, NULL, H5P_DEFAULT);
    }
    H5Fclose(file);
    expect_open("hostile.h5", NULL);
    file = H5Fcreate("hostile.h5", H5F_ACC_TRUNC, H5P_DEFAULT, access);
    char *value = malloc(LONG);
    memset(value, 'a', LONG);
    H5Tset_size(text, LONG);
    add_attribute(file, "text", text, 1, value);
    H5Fclose(file);
    expect_open("hostile.h5", "text: expected a text of at most 16 MiB, found more");
    free(value);
}

/* ---- Numbers changed by hand, in HDF5's old format, which has no checksums of its own ---- */

/* Every 8 bytes that are `from`. */
static void replace(const char *path, uint64_t from, uint64_t to) {
    size_t size;
    int count = 0;
    char *bytes = sample_bytes(path, &size);
    for (size_t at = 0; at + 8 <= size; ++at)
        if (!memcmp(bytes + at, &from, 8)) {
            memcpy(bytes + at, &to, 8);
            count++;
        }
    int fd = open(path, O_WRONLY);
    assert_true(count > 0 && fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    close(fd);
    free(bytes);
}

static void test_patched(void **state) {
    (void)state;
    const struct {
        uint64_t from, to;
        const char *message;
    } dims[] = {
        {457, 457 << 20, "/b: ..."},         /* beyond the file */
        {457, UINT64_MAX, "..."},            /* unlimited, or negative */
        {457, (uint64_t)1 << 60, "/b: ..."}, /* beyond 2^63 bytes */
    };
    for (size_t i = 0; i < sizeof dims / sizeof *dims; ++i) {
        hid_t file = new_file("hostile.h5");
        add(file, "/b", H5T_IEEE_F32LE, 1, (hsize_t[]){457}, H5P_DEFAULT);
        H5Fclose(file);
        replace("hostile.h5", dims[i].from, dims[i].to);
        expect_open("hostile.h5", dims[i].message);
    }
    hid_t file = new_file("hostile.h5");
    add(file, "/a", H5T_IEEE_F32LE, 1, (hsize_t[]){457}, H5P_DEFAULT);
    add(file, "/b", H5T_IEEE_F32LE, 1, (hsize_t[]){457}, H5P_DEFAULT);
    hid_t a = H5Dopen2(file, "/a", H5P_DEFAULT), b = H5Dopen2(file, "/b", H5P_DEFAULT);
    uint64_t first = H5Dget_offset(a), second = H5Dget_offset(b);
    H5Dclose(a);
    H5Dclose(b);
    H5Fclose(file);
    replace("hostile.h5", second, first + 8);
    expect_open("hostile.h5", "/b: expected bytes of its own, found those of /a");
    replace("hostile.h5", first + 8, (uint64_t)1 << 40);
    expect_open("hostile.h5", "/b: ...");
}

/* ---- What a file may do to HDF5 ---- */

static const char *trouble = "";

void fault_point(const char *where) {
    if (strcmp(where, "archive.child") != 0) return;
    if (!strcmp(trouble, "crash")) raise(SIGSEGV);
    if (!strcmp(trouble, "abort")) abort();
    if (!strcmp(trouble, "exit")) _exit(3);
    if (!strcmp(trouble, "forever")) {
        setrlimit(RLIMIT_CPU, &(struct rlimit){1, 2}); /* sooner than the limit it has */
        for (volatile uint64_t i = 0;; ++i) continue;
    }
    if (!strcmp(trouble, "memory")) {
        size_t bytes = (size_t)5 << 30;
        void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) raise(SIGFPE);
    }
    if (!strcmp(trouble, "write") && open("written.txt", O_WRONLY | O_CREAT, 0666) >= 0) {
        int fd = open("written.txt", O_WRONLY);
        if (write(fd, "x", 1) < 0) raise(SIGFPE);
    }
}

static void test_troubles(void **state) {
    (void)state;
    const struct {
        const char *trouble, *message;
    } cases[] = {
        {"", NULL},
        {"crash", "expected an HDF5 file of arrays, found one that crashes HDF5 (signal 11)"},
        {"abort", "expected an HDF5 file of arrays, found one that crashes HDF5 (signal 6)"},
        {"exit", "expected an HDF5 file of arrays, found one that ends HDF5 (exit code 3)"},
        {"memory", "expected an HDF5 file of arrays, found one that crashes HDF5 (signal 8)"},
        {"write", "expected an HDF5 file of arrays, found one that crashes HDF5 (signal ..."}, /* SIGXFSZ */
        {"forever", "expected an HDF5 file of arrays, found one that HDF5 does not come to the end of"},
    };
    hid_t file = new_file("hostile.h5");
    add_plain(file, "/plain");
    H5Fclose(file);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        trouble = cases[i].trouble;
        expect_open("hostile.h5", cases[i].message);
    }
    trouble = "";
}

/* ---- Tables of checksums ---- */

/* /a [100] float64 and /b [7] int64, whole; the table is as `change` leaves it: row 0, then /a in two slabs, then /b.
 */
static void expect_table(void (*change)(struct slab *table), int64_t rows, const char *message) {
    struct h5_array arrays[] = {{"/a", H5T_FLOAT64, 1, {100}, 0, 0},
                                {"/b", H5T_INT64, 1, {7}, 0, 0},
                                {SLABS_NAME, H5T_INT64, 2, {rows, SLAB_COLUMNS}, 0, 0}};
    struct h5_contents contents = {.arrays = arrays, .n_arrays = 3};
    struct slab table[5] = {0};
    assert_int_equal(h5_create("table.h5", &contents), STATUS_OK);
    int fd = open("table.h5", O_RDWR);
    assert_int_equal(ftruncate(fd, contents.bytes), 0);
    assert_int_equal(slabs_sum_rest(fd, &contents, &table[0]), 0);
    const char zeros[400] = {0};
    uint64_t zeros_400 = XXH3_64bits(zeros, 400), zeros_56 = XXH3_64bits(zeros, 56);
    table[1] = (struct slab){arrays[0].offset, 400, zeros_400};
    table[2] = (struct slab){arrays[0].offset + 400, 400, zeros_400};
    table[3] = (struct slab){arrays[1].offset, 56, zeros_56};
    if (change) change(table);
    size_t bytes = (size_t)rows * sizeof *table;
    if (bytes) assert_int_equal(pwrite(fd, table, bytes, arrays[2].offset), bytes);
    close(fd);
    expect_open("table.h5", message);
}

static void turned(struct slab *t) {
    struct slab kept = t[1];
    t[1] = t[3];
    t[3] = kept;
}
static void gap(struct slab *t) { t[2].offset += 8, t[2].bytes -= 8; }
static void overlap(struct slab *t) { t[1].bytes += 8; }
static void twice(struct slab *t) { t[4] = t[3]; }
static void negative(struct slab *t) { t[1].bytes = -400; }
static void outside(struct slab *t) { t[3].offset += (int64_t)1 << 62; }
static void across(struct slab *t) { t[2].bytes += 64; }
static void odd(struct slab *t) { t[1].bytes -= 3, t[2].offset -= 3, t[2].bytes += 3; }
static void nothing(struct slab *t) { t[4] = (struct slab){t[1].offset, 0, 0}; }
static void other_sum(struct slab *t) { t[0].sum ^= 1; }
static void other_length(struct slab *t) { t[0].bytes += 1; }
static void other_place(struct slab *t) { t[0].offset = 0; }

static void test_tables(void **state) {
    (void)state;
    const char *a = SLABS_NAME ": expected slabs that cover /a, found others",
               *b = SLABS_NAME ": expected slabs that cover /b, found others",
               *rest = "attributes and description: expected checksum ...";
    expect_table(NULL, 4, NULL);
    expect_table(turned, 4, NULL);
    expect_table(NULL, 3, b);
    expect_table(NULL, 1, a);
    expect_table(gap, 4, a);
    expect_table(overlap, 4, a);
    expect_table(negative, 4, a);
    expect_table(across, 4, a);
    expect_table(odd, 4, a);
    expect_table(nothing, 5, a);
    expect_table(outside, 4, b);
    expect_table(twice, 5, SLABS_NAME ": expected slabs of arrays, found one from ...");
    expect_table(other_sum, 4, rest);
    expect_table(other_length, 4, SLABS_NAME ": expected ...");
    expect_table(other_place, 4, SLABS_NAME ": expected ...");
    expect_table(NULL, 0, SLABS_NAME ": expected rows of 3 integers, found something else");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_links),      cmocka_unit_test(test_layouts),  cmocka_unit_test(test_types),
        cmocka_unit_test(test_attributes), cmocka_unit_test(test_many),     cmocka_unit_test(test_patched),
        cmocka_unit_test(test_tables),     cmocka_unit_test(test_troubles),
    };
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
