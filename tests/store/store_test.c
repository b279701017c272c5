/* Files written and read by one process: every type and rank, every way to be another file than expected. */
#include <errno.h>
#include <fcntl.h>
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

#include "sample.h"

/* HDF5 loses memory of its own where it cannot write: no leak of ours. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5"; }

static void write_sample(const char *path, int seed) {
    struct snapshot *snapshot = snapshot_new(NULL);
    sample_put(snapshot, 0, 1, seed);
    assert_int_equal(snapshot_write(snapshot, path), STATUS_OK);
    snapshot_free(snapshot);
}

static struct archive *open_file(const char *path) {
    struct archive *archive;
    enum status status = archive_open(&archive, path, NULL);
    if (status) fail_msg("%s", status_message());
    return archive;
}

static void expect_whole(const char *path, int seed) {
    struct archive *archive = open_file(path);
    int64_t bytes, table = archive_find(archive, "/checksums")->bytes;
    assert_true(archive_has_checksums(archive));
    for (int width = 0; width < 2; ++width)
        for (int parts = 1; parts <= 5; parts += 2)
            for (int part = 0; part < parts; ++part) {
                const char *wrong = sample_check(archive, part, parts, seed, width);
                if (wrong) fail_msg("%s", wrong);
            }
    assert_int_equal(archive_verify(archive, &bytes), STATUS_OK);
    assert_int_equal(bytes, archive_contents(archive)->bytes - table);
    archive_close(archive);
}

static void write_whole(const char *path, const char *bytes, size_t size) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    close(fd);
}

/* The same snapshot, cleared, holds the next; the same contents are the same bytes. */
static void test_round_trip(void **state) {
    (void)state;
    struct snapshot *snapshot = snapshot_new(NULL);
    for (int seed = 0; seed < 3; ++seed) {
        snapshot_clear(snapshot);
        assert_int_equal(snapshot_bytes(snapshot), 0);
        sample_put(snapshot, 0, 1, seed);
        assert_true(snapshot_bytes(snapshot) > 7000000);
        assert_int_equal(snapshot_write(snapshot, "sample.h5"), STATUS_OK);
        assert_int_equal(access("sample.h5.tmp", F_OK), -1);
        expect_whole("sample.h5", seed);
    }
    snapshot_free(snapshot);
    size_t size, again;
    char *bytes = sample_bytes("sample.h5", &size);
    sleep(1); /* times, in seconds, are not in the file */
    write_sample("sample.h5", 2);
    char *other = sample_bytes("sample.h5", &again);
    assert_int_equal(size, again);
    assert_memory_equal(bytes, other, size);
    free(bytes);
    free(other);
    snapshot = snapshot_new(NULL);
    assert_int_equal(snapshot_write(snapshot, "none.h5"), STATUS_OK);
    struct archive *archive = open_file("none.h5");
    assert_int_equal(archive_contents(archive)->n_arrays, 1);
    archive_close(archive);
    snapshot_free(snapshot);
}

static void expect_message(enum status status, const char *message) {
    assert_int_equal(status, STATUS_CHECKPOINT);
    assert_string_equal(status_message(), message);
    status_clear();
}

static void test_contents(void **state) {
    (void)state;
    int64_t step;
    double best;
    const char *text;
    write_sample("sample.h5", 0);
    struct archive *archive = open_file("sample.h5");
    const struct h5_contents *contents = archive_contents(archive);
    assert_string_equal(archive_path(archive), "sample.h5");
    assert_int_equal(contents->n_arrays, SAMPLE_ARRAYS + 1);
    assert_string_equal(contents->arrays[0].name, "/b/deep/values");
    assert_string_equal(contents->arrays[SAMPLE_ARRAYS].name, "/wide");
    assert_null(archive_find(archive, "/b"));
    assert_null(archive_find(archive, "/b/deep"));
    assert_null(archive_find(archive, "whole"));
    assert_int_equal(archive_find(archive, "/b/scalar")->rank, 0);
    assert_int_equal(archive_read_int(archive, "step", &step), STATUS_OK);
    assert_true(step == 1234567890123);
    assert_int_equal(archive_read_real(archive, "best", &best), STATUS_OK);
    assert_true(best == 1.25);
    assert_int_equal(archive_read_text(archive, "configuration", &text), STATUS_OK);
    assert_string_equal(text, "{\"caf\xc3\xa9\": 1}");
    assert_int_equal(archive_read_text(archive, "nothing", &text), STATUS_OK);
    assert_string_equal(text, "");
    expect_message(archive_read_int(archive, "stop", &step),
                   "sample.h5: attribute stop: expected an integer, found none");
    expect_message(archive_read_text(archive, "step", &text),
                   "sample.h5: attribute step: expected text, found something else");
    expect_message(archive_read_real(archive, "step", &best),
                   "sample.h5: attribute step: expected a number, found something else");
    archive_close(archive);
}

static void test_mismatches(void **state) {
    (void)state;
    const struct {
        const char *name;
        enum h5_type type;
        int rank;
        int64_t shape[2];
        const char *message;
    } cases[] = {
        {"/b/deep/values", H5T_FLOAT32, 2, {6, 4}, "/b/deep/values: expected shape [6, 4], found [6, 5]"},
        {"/b/deep/values", H5T_FLOAT32, 1, {6, 0}, "/b/deep/values: expected shape [6], found [6, 5]"},
        {"/b/scalar", H5T_FLOAT64, 1, {1, 0}, "/b/scalar: expected shape [1], found []"},
        {"/whole", H5T_FLOAT32, 1, {3, 0}, "/whole: expected floating-point numbers, found values of another type"},
        {"/b/scalar", H5T_INT64, 0, {0, 0}, "/b/scalar: expected integers, found values of another type"},
        {"/b/deep", H5T_FLOAT32, 1, {1, 0}, "/b/deep: expected an array, found none"},
        {"/b/shallow", H5T_FLOAT32, 1, {1, 0}, "/b/shallow: expected an array, found none"},
    };
    write_sample("sample.h5", 0);
    struct archive *archive = open_file("sample.h5");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double room[64];
        char message[200];
        snprintf(message, sizeof message, "sample.h5: %s", cases[i].message);
        expect_message(archive_read(archive, cases[i].name, cases[i].type, cases[i].rank, cases[i].shape, 0, 1, room),
                       message);
    }
    archive_close(archive);
}

static void expect_no_open(const char *path, const char *message) {
    struct archive *archive;
    expect_message(archive_open(&archive, path, NULL), message);
    assert_null(archive);
}

static void test_no_such_file(void **state) {
    (void)state;
    write_whole("empty.h5", "", 0);
    write_whole("foreign.h5", "PK\3\4 a zip file, say", 20);
    mkfifo("pipe.h5", 0666);
    expect_no_open("missing.h5", "missing.h5: expected an HDF5 file, found: No such file or directory");
    expect_no_open(".", ".: expected an HDF5 file, found: a folder");
    expect_no_open("empty.h5", "empty.h5: expected an HDF5 file, found: an empty file");
    expect_no_open("foreign.h5", "foreign.h5: expected an HDF5 file, found: a file of another kind");
    expect_no_open("pipe.h5", "pipe.h5: expected an HDF5 file, found: a device or a pipe");
    expect_no_open("/dev/zero", "/dev/zero: expected an HDF5 file, found: a device or a pipe");
    struct snapshot *snapshot = snapshot_new(NULL);
    assert_int_equal(snapshot_write(snapshot, "no_folder/a.h5"), STATUS_WRITE);
    assert_string_equal(status_message(), "no_folder/a.h5.tmp: cannot create: No such file or directory");
    status_clear();
    snapshot_free(snapshot);
    mkdir("folder.h5", 0777); /* a file does not replace a folder */
    snapshot = snapshot_new(NULL);
    assert_int_equal(snapshot_write(snapshot, "folder.h5"), STATUS_WRITE);
    assert_string_equal(status_message(), "folder.h5.tmp: cannot rename to folder.h5: Is a directory");
    status_clear();
    assert_int_equal(access("folder.h5.tmp", F_OK), -1);
    snapshot_free(snapshot);
    rmdir("folder.h5");
    unlink("pipe.h5");
}

/* Cut anywhere: an error of the open, in one line that names the file. */
static void test_truncated(void **state) {
    (void)state;
    write_sample("sample.h5", 0);
    size_t size;
    char *bytes = sample_bytes("sample.h5", &size);
    for (size_t length = 1; length < size; length = length < 16 ? length + 1 : length * 9 / 8 + 1) {
        struct archive *archive;
        write_whole("cut.h5", bytes, length);
        assert_int_equal(archive_open(&archive, "cut.h5", NULL), STATUS_CHECKPOINT);
        assert_non_null(strstr(status_message(), "cut.h5: "));
        assert_null(strchr(status_message(), '\n'));
        status_clear();
    }
    free(bytes);
}

/* A file size limit stands for a full disk: in the layout, in its space. The file before stays, and the process goes
 * on. */
static void test_no_space(void **state) {
    (void)state;
    struct rlimit before, limit;
    write_sample("full.h5", 1);
    struct snapshot *snapshot = snapshot_new(NULL);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    for (rlim_t room = 0; room < 7 << 20; room = room < 8192 ? room + 512 : room * 3) {
        snapshot_clear(snapshot);
        sample_put(snapshot, 0, 1, 2);
        limit = before;
        limit.rlim_cur = room;
        setrlimit(RLIMIT_FSIZE, &limit);
        enum status status = snapshot_write(snapshot, "full.h5");
        setrlimit(RLIMIT_FSIZE, &before);
        assert_int_equal(status, STATUS_WRITE);
        assert_non_null(strstr(status_message(), "full.h5.tmp: "));
        assert_non_null(strstr(status_message(), "File too large"));
        status_clear();
        assert_int_equal(access("full.h5.tmp", F_OK), -1);
    }
    expect_whole("full.h5", 1);
    snapshot_free(snapshot);
    write_sample("full.h5", 2);
    expect_whole("full.h5", 2);
}

/* A limit that comes while rows are written: a short write, and then none. */
static void test_short_write(void **state) {
    (void)state;
    struct rlimit before, limit;
    write_sample("short.h5", 1);
    struct snapshot *snapshot = snapshot_new(NULL);
    sample_put(snapshot, 0, 1, 2);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    limit = before;
    limit.rlim_cur = 3000001;
    assert_int_equal(snapshot_begin(snapshot, "short.h5"), STATUS_OK);
    setrlimit(RLIMIT_FSIZE, &limit);
    snapshot_fill(snapshot);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(snapshot_end(snapshot), STATUS_WRITE);
    assert_string_equal(status_message(), "short.h5.tmp: cannot write: File too large");
    status_clear();
    assert_int_equal(access("short.h5.tmp", F_OK), -1);
    expect_whole("short.h5", 1);
    snapshot_free(snapshot);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_contents),  cmocka_unit_test(test_mismatches),
        cmocka_unit_test(test_no_such_file), cmocka_unit_test(test_truncated), cmocka_unit_test(test_no_space),
        cmocka_unit_test(test_short_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
