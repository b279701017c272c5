#include "base/h5file.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* HDF5 loses memory of its own when it meets damage: no leak of ours. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5"; }

enum { ROWS = 6, COLUMNS = 5 };

static const int64_t shape[2] = {ROWS, COLUMNS};

static void fill(float *values) {
    for (int i = 0; i < ROWS * COLUMNS; i++) values[i] = (float)i / 7;
}

/* Arrays of every type and rank, and attributes. */
static void write_sample(const char *path) {
    struct h5file *file;
    float values[ROWS * COLUMNS];
    const double scalar = 0.1;
    const int64_t whole[3] = {-1, INT64_MAX, 3}, three = 3, empty[2] = {0, 4};
    fill(values);
    assert_int_equal(h5file_create(&file, path, NULL), STATUS_OK);
    assert_int_equal(h5file_write(file, "/b/deep/values", H5T_FLOAT32, 2, shape, 0, ROWS, values), STATUS_OK);
    assert_int_equal(h5file_write(file, "/b/a", H5T_FLOAT64, 0, NULL, 0, 1, &scalar), STATUS_OK);
    assert_int_equal(h5file_write(file, "/whole", H5T_INT64, 1, &three, 0, 3, whole), STATUS_OK);
    assert_int_equal(h5file_write(file, "/empty", H5T_FLOAT32, 2, empty, 0, 0, NULL), STATUS_OK);
    assert_int_equal(h5file_write_int(file, "step", 1234567890123), STATUS_OK);
    assert_int_equal(h5file_write_double(file, "best", 1.25), STATUS_OK);
    assert_int_equal(h5file_write_text(file, "config", "{\"caf\xc3\xa9\": 1}"), STATUS_OK);
    assert_int_equal(h5file_write_text(file, "nothing", ""), STATUS_OK);
    assert_int_equal(h5file_close(file), STATUS_OK);
}

static void test_arrays(void **state) {
    (void)state;
    write_sample("h5_sample.h5");
    struct h5file *file;
    float values[ROWS * COLUMNS], expected[ROWS * COLUMNS];
    double wide[ROWS * COLUMNS], scalar;
    int64_t whole[3], three = 3, found[H5_MAX_RANK], empty[2] = {0, 4};
    int rank;
    fill(expected);
    assert_int_equal(h5file_open(&file, "h5_sample.h5", NULL), STATUS_OK);
    assert_int_equal(h5file_read(file, "/b/deep/values", H5T_FLOAT32, 2, shape, 0, ROWS, values), STATUS_OK);
    assert_memory_equal(values, expected, sizeof values);
    assert_int_equal(h5file_read(file, "/b/deep/values", H5T_FLOAT64, 2, shape, 0, ROWS, wide), STATUS_OK);
    for (int i = 0; i < ROWS * COLUMNS; i++) assert_true(wide[i] == expected[i]);
    memset(values, 0, sizeof values);
    assert_int_equal(h5file_read(file, "/b/deep/values", H5T_FLOAT32, 2, shape, 2, 3, values), STATUS_OK);
    assert_memory_equal(values, expected + 2 * COLUMNS, 3 * COLUMNS * sizeof *values);
    assert_true(values[3 * COLUMNS] == 0);
    assert_int_equal(h5file_read(file, "/b/deep/values", H5T_FLOAT32, 2, shape, ROWS, 0, NULL), STATUS_OK);
    assert_int_equal(h5file_read(file, "/b/a", H5T_FLOAT64, 0, NULL, 0, 1, &scalar), STATUS_OK);
    assert_true(scalar == 0.1);
    assert_int_equal(h5file_read(file, "/whole", H5T_INT64, 1, &three, 0, 3, whole), STATUS_OK);
    assert_true(whole[0] == -1 && whole[1] == INT64_MAX && whole[2] == 3);
    assert_int_equal(h5file_read(file, "/empty", H5T_FLOAT32, 2, empty, 0, 0, NULL), STATUS_OK);

    assert_int_equal(h5file_shape(file, "/b/deep/values", &rank, found), STATUS_OK);
    assert_int_equal(rank, 2);
    assert_memory_equal(found, shape, sizeof shape);
    assert_int_equal(h5file_shape(file, "/b/a", &rank, found), STATUS_OK);
    assert_int_equal(rank, 0);
    const char *const absent[] = {"/c", "/b/c", "/c/deep/values", "c/"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(h5file_shape(file, absent[i], &rank, found), STATUS_OK);
        assert_int_equal(rank, -1);
    }
    assert_int_equal(h5file_close(file), STATUS_OK);
}

static void test_rows_in_pieces(void **state) {
    (void)state;
    struct h5file *file;
    float values[ROWS * COLUMNS], expected[ROWS * COLUMNS];
    fill(expected);
    assert_int_equal(h5file_create(&file, "h5_pieces.h5", NULL), STATUS_OK);
    assert_int_equal(h5file_write(file, "/a", H5T_FLOAT32, 2, shape, 4, 2, expected + 4 * COLUMNS), STATUS_OK);
    assert_int_equal(h5file_write(file, "/a", H5T_FLOAT32, 2, shape, 0, 4, expected), STATUS_OK);
    assert_int_equal(h5file_close(file), STATUS_OK);
    assert_int_equal(h5file_open(&file, "h5_pieces.h5", NULL), STATUS_OK);
    assert_int_equal(h5file_read(file, "/a", H5T_FLOAT32, 2, shape, 0, ROWS, values), STATUS_OK);
    assert_memory_equal(values, expected, sizeof values);
    assert_int_equal(h5file_close(file), STATUS_OK);
}

static void test_attributes(void **state) {
    (void)state;
    write_sample("h5_sample.h5");
    struct h5file *file;
    int64_t step;
    double best;
    char *text;
    assert_int_equal(h5file_open(&file, "h5_sample.h5", NULL), STATUS_OK);
    assert_int_equal(h5file_read_int(file, "step", &step), STATUS_OK);
    assert_true(step == 1234567890123);
    assert_int_equal(h5file_read_double(file, "best", &best), STATUS_OK);
    assert_true(best == 1.25);
    assert_int_equal(h5file_read_text(file, "config", &text), STATUS_OK);
    assert_string_equal(text, "{\"caf\xc3\xa9\": 1}");
    free(text);
    assert_int_equal(h5file_read_text(file, "nothing", &text), STATUS_OK);
    assert_string_equal(text, "");
    free(text);
    assert_int_equal(h5file_read_int(file, "stop", &step), STATUS_CHECKPOINT);
    assert_string_equal(status_message(), "h5_sample.h5: attribute stop: expected an integer, found none");
    status_clear();
    assert_int_equal(h5file_read_text(file, "step", &text), STATUS_CHECKPOINT);
    assert_string_equal(status_message(), "h5_sample.h5: attribute step: expected text, found something else");
    status_clear();
    assert_int_equal(h5file_close(file), STATUS_OK);
}

static void test_list(void **state) {
    (void)state;
    write_sample("h5_sample.h5");
    struct h5file *file;
    char(*names)[H5_MAX_NAME];
    int count;
    assert_int_equal(h5file_open(&file, "h5_sample.h5", NULL), STATUS_OK);
    assert_int_equal(h5file_list(file, "/", &names, &count), STATUS_OK);
    const char *const all[] = {"/b/a", "/b/deep/values", "/empty", "/whole"};
    assert_int_equal(count, 4);
    for (int i = 0; i < count; i++) assert_string_equal(names[i], all[i]);
    free(names);
    assert_int_equal(h5file_list(file, "/b", &names, &count), STATUS_OK);
    assert_int_equal(count, 2);
    assert_string_equal(names[1], "/b/deep/values");
    free(names);
    assert_int_equal(h5file_list(file, "/c", &names, &count), STATUS_CHECKPOINT);
    status_clear();
    assert_int_equal(h5file_close(file), STATUS_OK);
}

static void test_mismatches(void **state) {
    (void)state;
    write_sample("h5_sample.h5");
    const struct {
        const char *name;
        enum h5type type;
        int rank;
        int64_t shape[2];
        const char *message;
    } cases[] = {
        {"/b/deep/values", H5T_FLOAT32, 2, {6, 4}, "/b/deep/values: expected shape [6, 4], found [6, 5]"},
        {"/b/deep/values", H5T_FLOAT32, 1, {6, 0}, "/b/deep/values: expected shape [6], found [6, 5]"},
        {"/b/a", H5T_FLOAT64, 1, {1, 0}, "/b/a: expected shape [1], found []"},
        {"/whole", H5T_FLOAT32, 1, {3, 0}, "/whole: expected floating-point numbers, found values of another type"},
        {"/b/a", H5T_INT64, 0, {0, 0}, "/b/a: expected integers, found values of another type"},
        {"/b/deep", H5T_FLOAT32, 1, {1, 0}, "/b/deep: expected an array, found a group"},
        {"/b/shallow", H5T_FLOAT32, 1, {1, 0}, "/b/shallow: expected an array, found none"},
    };
    struct h5file *file;
    assert_int_equal(h5file_open(&file, "h5_sample.h5", NULL), STATUS_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double room[ROWS * COLUMNS];
        char message[200];
        snprintf(message, sizeof message, "h5_sample.h5: %s", cases[i].message);
        assert_int_equal(h5file_read(file, cases[i].name, cases[i].type, cases[i].rank, cases[i].shape, 0, 1, room),
                         STATUS_CHECKPOINT);
        assert_string_equal(status_message(), message);
        status_clear();
    }
    assert_int_equal(h5file_close(file), STATUS_OK);
}

static void expect_no_open(const char *path, const char *message) {
    struct h5file *file;
    assert_int_equal(h5file_open(&file, path, NULL), STATUS_CHECKPOINT);
    assert_string_equal(status_message(), message);
    status_clear();
}

static void write_file(const char *path, const char *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void test_no_such_file(void **state) {
    (void)state;
    struct h5file *file;
    write_file("h5_empty.h5", "", 0);
    write_file("h5_foreign.h5", "PK\3\4 a zip file, say", 20);
    expect_no_open("h5_missing.h5", "h5_missing.h5: expected an HDF5 file, found: No such file or directory");
    expect_no_open(".", ".: expected an HDF5 file, found: a folder");
    expect_no_open("h5_empty.h5", "h5_empty.h5: expected an HDF5 file, found: an empty file");
    expect_no_open("h5_foreign.h5", "h5_foreign.h5: expected an HDF5 file, found: a file of another kind");
    assert_int_equal(h5file_create(&file, "h5_no_folder/a.h5", NULL), STATUS_WRITE);
    assert_string_equal(status_message(), "h5_no_folder/a.h5: cannot create: No such file or directory");
    status_clear();
}

/* A file cut anywhere is an error of the open: never a crash, never other numbers. */
static void test_truncated(void **state) {
    (void)state;
    write_sample("h5_sample.h5");
    struct stat info;
    assert_int_equal(stat("h5_sample.h5", &info), 0);
    size_t size = (size_t)info.st_size;
    char *bytes = malloc(size);
    FILE *sample = fopen("h5_sample.h5", "rb");
    assert_int_equal(fread(bytes, 1, size, sample), size);
    fclose(sample);
    for (size_t length = 1; length < size; length += length < 64 ? 1 : 61) {
        struct h5file *file;
        write_file("h5_cut.h5", bytes, length);
        assert_int_equal(h5file_open(&file, "h5_cut.h5", NULL), STATUS_CHECKPOINT);
        assert_non_null(strstr(status_message(), "h5_cut.h5: "));
        assert_null(strchr(status_message(), '\n'));
        status_clear();
    }
    free(bytes);
}

/* Metadata overwritten with noise: reads may fail or, in the data itself, give other numbers; none may crash. */
static void test_damaged(void **state) {
    (void)state;
    write_sample("h5_sample.h5");
    struct stat info;
    assert_int_equal(stat("h5_sample.h5", &info), 0);
    size_t size = (size_t)info.st_size;
    char *bytes = malloc(size), *damaged = malloc(size);
    FILE *sample = fopen("h5_sample.h5", "rb");
    assert_int_equal(fread(bytes, 1, size, sample), size);
    fclose(sample);
    int failed = 0;
    for (size_t at = 0; at + 4 < size; at += 7) {
        struct h5file *file;
        float values[ROWS * COLUMNS];
        memcpy(damaged, bytes, size);
        for (int i = 0; i < 4; i++) damaged[at + (size_t)i] ^= (char)0x5a;
        write_file("h5_damaged.h5", damaged, size);
        enum status status = h5file_open(&file, "h5_damaged.h5", NULL);
        if (!status) {
            status = h5file_read(file, "/b/deep/values", H5T_FLOAT32, 2, shape, 0, ROWS, values);
            h5file_close(file);
        }
        failed += status != STATUS_OK;
        status_clear();
    }
    assert_true(failed > 10);
    free(bytes);
    free(damaged);
}

/* A file size limit stands for a full disk. The process goes on afterwards. */
static void test_full_disk(void **state) {
    (void)state;
    enum { MANY = 1 << 20 };
    struct h5file *file;
    struct rlimit before, limit;
    const int64_t many = MANY;
    float *values = calloc(MANY, sizeof *values);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    for (rlim_t room = 0; room < 3 << 20; room += 1 << 20) {
        assert_int_equal(h5file_create(&file, "h5_full.h5", NULL), STATUS_OK);
        limit = before;
        limit.rlim_cur = room;
        setrlimit(RLIMIT_FSIZE, &limit);
        enum status write = h5file_write(file, "/a", H5T_FLOAT32, 1, &many, 0, many, values);
        enum status close = h5file_close(file);
        setrlimit(RLIMIT_FSIZE, &before);
        assert_true(write == STATUS_WRITE || close == STATUS_WRITE);
        assert_non_null(strstr(status_message(), "h5_full.h5: "));
        assert_non_null(strstr(status_message(), "File too large"));
        status_clear();
        unlink("h5_full.h5"); /* it stays open in this process, and could not be created again */
    }
    free(values);
    write_sample("h5_sample.h5");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arrays),    cmocka_unit_test(test_rows_in_pieces), cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_list),      cmocka_unit_test(test_mismatches),     cmocka_unit_test(test_no_such_file),
        cmocka_unit_test(test_truncated), cmocka_unit_test(test_damaged),        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
