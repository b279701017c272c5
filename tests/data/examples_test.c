#include "data/examples.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "data/records.h"
#include "labelled.h"

static const char *const train_path = "labelled_train", *const valid_path = "labelled_valid";

static void open_good(struct labelled *labelled, const struct config *config) {
    if (labelled_open(labelled, config)) fail_msg("%s", status_message());
}

/* The same file for training and validation: all of it is in both. */
static void open_text(struct labelled *labelled, enum data_kind kind, const char *text, const char *columns) {
    put_file(train_path, text, strlen(text));
    struct config config = labelled_config(kind, train_path, train_path, "");
    sscanf(columns, "%511[^,],%511s", config.data.text, config.data.label);
    open_good(labelled, &config);
}

static void example_is(const struct labelled *labelled, enum split split, int64_t i, const char *text,
                       const char *label, const char *place) {
    const struct examples *examples = &labelled->splits[split];
    assert_true(i < examples->count);
    assert_int_equal(examples->offset[i + 1] - examples->offset[i], strlen(text));
    assert_memory_equal(examples->bytes + examples->offset[i], text, strlen(text));
    assert_string_equal(labelled->classes[examples->label[i]], label);
    assert_string_equal(examples->places + examples->place[i], place);
}

/* ---- csv ---- */

static void test_csv(void **state) {
    (void)state;
    struct labelled set;
    open_text(&set, DATA_CSV,
              "text,category\r\n"
              "plain , b\r\n"
              "\r\n"
              "\"with, comma and \"\"quotes\"\"\",a\r\n"
              "\"two\nlines\r\nor \r three \",b\r\n"
              "\"after them\",a\n"
              "no end,a",
              "");
    assert_int_equal(set.splits[SPLIT_TRAIN].count, 5);
    assert_int_equal(set.splits[SPLIT_TEST].count, 0);
    assert_int_equal(set.n_classes, 2);
    example_is(&set, SPLIT_TRAIN, 0, "plain", "b", "2");
    example_is(&set, SPLIT_TRAIN, 1, "with, comma and \"quotes\"", "a", "4");
    example_is(&set, SPLIT_TRAIN, 2, "two\nlines\r\nor \r three", "b", "5");
    example_is(&set, SPLIT_TRAIN, 3, "after them", "a", "8");
    example_is(&set, SPLIT_VALID, 4, "no end", "a", "9");
    labelled_free(&set);
}

static void test_columns(void **state) {
    (void)state;
    static const char text[] = "\xEF\xBB\xBFid,what,said\n1,x,one\n2,y,two\n";
    struct labelled set;
    open_text(&set, DATA_CSV, text, "said,what");
    assert_int_equal(set.splits[SPLIT_TRAIN].count, 2);
    example_is(&set, SPLIT_TRAIN, 1, "two", "y", "3");
    labelled_free(&set);
    open_text(&set, DATA_CSV, text, "3,what"); /* one name makes it a header */
    assert_int_equal(set.splits[SPLIT_TRAIN].count, 2);
    labelled_free(&set);
    open_text(&set, DATA_CSV, text, "3,2"); /* none names it, but its label occurs once */
    assert_int_equal(set.splits[SPLIT_TRAIN].count, 2);
    assert_string_equal(set.classes[1], "y");
    labelled_free(&set);
}

/* ---- tsv ---- */

static void test_tsv(void **state) {
    (void)state;
    struct labelled set;
    open_text(&set, DATA_TSV, "sentence\tlabel\n a \"quote ,\t1\r\n\n\xE2\x82\xAC \t0\nc\t1", "");
    assert_int_equal(set.splits[SPLIT_TRAIN].count, 3);
    example_is(&set, SPLIT_TRAIN, 0, "a \"quote ,", "1", "2");
    example_is(&set, SPLIT_TRAIN, 1, "\xE2\x82\xAC", "0", "4");
    example_is(&set, SPLIT_TRAIN, 2, "c", "1", "5");
    labelled_free(&set);
}

/* Which first lines are headers. */
static void test_headers(void **state) {
    (void)state;
    static const struct {
        const char *train, *valid;
        int64_t n_train, n_valid;
    } cases[] = {
        {"t\tlabel\na\t0\nb\t1\n", "t\tlabel\nc\t1\n", 2, 1}, /* in both */
        {"t\tlabel\na\t0\nb\t1\n", "c\t1\nd\t1\n", 2, 2},     /* in training alone */
        {"a\t0\nb\t1\nc\t1\n", "c\t1\n", 3, 1},               /* a number is none, though it occurs once */
        {"a\tx\nb\tx\nc\ty\n", "c\tx\n", 3, 1},               /* a label that occurs again */
        {"a\tx\nb\ty\n", "c\tx\n", 2, 1},                     /* too few lines to tell */
        {"a\tx\nb\ty\nb\tz\n", "c\ty\n", 2, 1},               /* taken for one: so it is said on the log */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        struct labelled set;
        put_file(train_path, cases[i].train, strlen(cases[i].train));
        put_file(valid_path, cases[i].valid, strlen(cases[i].valid));
        struct config config = labelled_config(DATA_TSV, train_path, valid_path, "");
        open_good(&set, &config);
        assert_int_equal(set.splits[SPLIT_TRAIN].count, cases[i].n_train);
        assert_int_equal(set.splits[SPLIT_VALID].count, cases[i].n_valid);
        labelled_free(&set);
    }
}

/* ---- trees ---- */

static void test_trees(void **state) {
    (void)state;
    struct labelled set;
    open_text(&set, DATA_TREES,
              "(3 (2 (2 The) (2 and\\/or)) (4 (2 -LRB-) (3 (2 R-LRB-) (2 -RRB-))))\r\n"
              "\n"
              "  (0 (1  \\*\\* )(2 \xC3\xA9) )\n",
              "");
    assert_int_equal(set.splits[SPLIT_TRAIN].count, 2);
    example_is(&set, SPLIT_TRAIN, 0, "The and/or ( R-LRB- )", "3", "1");
    example_is(&set, SPLIT_TRAIN, 1, "** \xC3\xA9", "0", "3");
    labelled_free(&set);
}

/* ---- imdb ---- */

static const char *const reviews[][2] = {
    {"aclImdb/README", "about"},
    {"aclImdb/train/pos/10_9.txt", "ten"},
    {"aclImdb/train/pos/9_10.txt", "nine <br /> \n"},
    {"aclImdb/train/pos/._9_10.txt", "\x01\xFF"},
    {"aclImdb/train/unsup/9_0.txt", "unsup"},
    {"aclImdb/train/neg/3_1.txt", "three"},
    {"aclImdb/test/neg/3_1.txt", "test three"},
    {"aclImdb/test/pos/0_7.txt", "test zero"},
    {"aclImdb/train/urls_pos.txt", "urls"},
};
enum { REVIEWS = sizeof reviews / sizeof *reviews };

static void write_archive(const char *path) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (int i = 0; i < REVIEWS; ++i) put_member(file, reviews[i][0], reviews[i][1]);
    char end[1024] = {0};
    fwrite(end, 1, sizeof end, file);
    assert_int_equal(fclose(file), 0);
}

static void write_folder(void) {
    static const char *const folders[] = {"",      "/train",    "/train/pos", "/train/neg", "/train/unsup",
                                          "/test", "/test/pos", "/test/neg"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; ++i) {
        char path[64];
        snprintf(path, sizeof path, "aclImdb%s", folders[i]);
        mkdir(path, 0777);
    }
    for (int i = 0; i < REVIEWS; ++i) put_file(reviews[i][0], reviews[i][1], strlen(reviews[i][1]));
}

static void test_imdb(void **state) {
    (void)state;
    struct labelled set;
    write_archive("imdb.tar");
    write_folder();
    assert_int_equal(system("gzip -fk imdb.tar"), 0);
    static const char *const paths[] = {"imdb.tar", "imdb.tar.gz", "aclImdb"};
    for (int i = 0; i < 3; ++i) {
        struct config config = labelled_config(DATA_IMDB, paths[i], paths[i], "");
        open_good(&set, &config);
        assert_int_equal(set.splits[SPLIT_TRAIN].count, 3);
        example_is(&set, SPLIT_TRAIN, 0, "three", "neg", "train/neg/3_1.txt");
        example_is(&set, SPLIT_TRAIN, 1, "nine <br />", "pos", "train/pos/9_10.txt");
        example_is(&set, SPLIT_TRAIN, 2, "ten", "pos", "train/pos/10_9.txt");
        assert_int_equal(set.splits[SPLIT_TEST].count, 2);
        example_is(&set, SPLIT_TEST, 0, "test three", "neg", "test/neg/3_1.txt");
        example_is(&set, SPLIT_TEST, 1, "test zero", "pos", "test/pos/0_7.txt");
        labelled_free(&set);
    }
}

/* ---- Classes and splits ---- */

static void test_classes(void **state) {
    (void)state;
    static const struct {
        const char *text, *classes[4];
    } cases[] = {
        {"a\t10\nb\t9\nc\t-1\nd\t9\n", {"-1", "9", "10"}},
        {"a\t10\nb\t9\nc\tx\nd\t10\n", {"10", "9", "x"}},
        {"a\tb\nb\tB\nc\ta b\nd\tb", {"B", "a b", "b"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        struct labelled set;
        open_text(&set, DATA_TSV, cases[i].text, "");
        assert_int_equal(set.n_classes, 3);
        for (int c = 0; c < 3; ++c) assert_string_equal(set.classes[c], cases[i].classes[c]);
        labelled_free(&set);
    }
}

/* Every text twice: the split is by text, about a tenth, and the rule is the documented one. */
static void test_validation_of_training(void **state) {
    (void)state;
    enum { TEXTS = 2000 };
    char *text = malloc(64 * TEXTS);
    size_t size = 0;
    for (int i = 0; i < TEXTS; ++i) size += (size_t)sprintf(text + size, " text %d\t%d\n", i % (TEXTS / 2), i % 3);
    put_file(train_path, text, size);
    free(text);
    struct config config = labelled_config(DATA_TSV, train_path, "", "");
    struct labelled set;
    open_good(&set, &config);
    int64_t valid = set.splits[SPLIT_VALID].count;
    assert_int_equal(set.splits[SPLIT_TRAIN].count + valid, TEXTS);
    assert_true(valid > TEXTS / 14 && valid < TEXTS / 7);
    for (int s = SPLIT_TRAIN; s <= SPLIT_VALID; ++s)
        for (int64_t i = 0; i < set.splits[s].count; ++i) {
            const int64_t *offset = set.splits[s].offset + i;
            uint64_t hash = hash_bytes(set.splits[s].bytes + offset[0], (size_t)(offset[1] - offset[0]), 0);
            assert_int_equal(hash % 10 == 0, s == SPLIT_VALID);
        }
    labelled_free(&set);
    assert_int_equal(hash_bytes("I am still waiting on my card?", 30, 0), 14793202974337828805u);
}

/* ---- For a model ---- */

static void test_encode(void **state) {
    (void)state;
    struct labelled set;
    struct vocabulary bytes = {.size = 3, .bytes = true};
    int32_t tokens[8];
    bool truncated;
    memset(bytes.symbol_of, -1, sizeof bytes.symbol_of);
    bytes.symbol_of[' '] = 1, bytes.symbol_of['a'] = 2;
    open_text(&set, DATA_TSV, "a-a a\t1\na\t2\n", "");
    const struct examples *examples = &set.splits[SPLIT_TRAIN];
    assert_int_equal(examples_encode(examples, 0, &bytes, 8, tokens, &truncated), 6);
    assert_memory_equal(tokens, ((int32_t[]){2, 1, 2, 1, 2, 3}), 6 * sizeof *tokens);
    assert_false(truncated);
    assert_int_equal(examples_encode(examples, 0, &bytes, 6, tokens, &truncated), 6);
    assert_false(truncated);
    assert_int_equal(examples_encode(examples, 0, &bytes, 3, tokens, &truncated), 3);
    assert_memory_equal(tokens, ((int32_t[]){1, 2, 3}), 3 * sizeof *tokens); /* the end */
    assert_true(truncated);
    bytes.symbol_of[' '] = -1, bytes.symbol_of['-'] = 0;
    assert_int_equal(text_encode(" a a\n", 5, &bytes, 8, tokens, &truncated), 4);
    assert_memory_equal(tokens, ((int32_t[]){2, 0, 2, 3}), 4 * sizeof *tokens);
    assert_int_equal(text_encode(" ", 1, &bytes, 8, tokens, &truncated), 1);
    assert_int_equal(tokens[0], 3);
    labelled_free(&set);
}

static void test_lengths_and_weights(void **state) {
    (void)state;
    struct labelled set;
    open_text(&set, DATA_TSV, "1234\t0\n12345\t1\n1\t1\n123456\t1\n", "");
    assert_int_equal(labelled_check_lengths(&set, 7, TOO_LONG_REFUSE), STATUS_OK);
    assert_int_equal(labelled_check_lengths(&set, 5, TOO_LONG_TRUNCATE), STATUS_OK);
    assert_int_equal(labelled_check_lengths(&set, 6, TOO_LONG_REFUSE), STATUS_DATA);
    assert_string_equal(status_message(), "labelled_train:4: data.too_long: expected a text of at most 5 bytes "
                                          "(classifier.length - 1), found 6");
    status_clear();
    double *weights = labelled_class_weights(&set);
    assert_true(weights[0] == 2 && weights[1] == 4.0 / 6);
    free(weights);
    labelled_free(&set);
}

/* Pages that are never touched stand for it. */
static void test_longest_text(void **state) {
    (void)state;
    size_t size = (size_t)INT32_MAX + 1;
    struct records records = {.path = "big"};
    char *text = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(text != MAP_FAILED);
    assert_int_equal(records_add(&records, text, (int64_t)size, "x", 1, "7"), STATUS_DATA);
    assert_string_equal(status_message(), "big:7: expected a text of at most 2147483647 bytes, found 2147483648");
    status_clear();
    munmap(text, size);
    records_free(&records);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_csv),          cmocka_unit_test(test_columns),
        cmocka_unit_test(test_tsv),          cmocka_unit_test(test_headers),
        cmocka_unit_test(test_trees),        cmocka_unit_test(test_imdb),
        cmocka_unit_test(test_classes),      cmocka_unit_test(test_validation_of_training),
        cmocka_unit_test(test_encode),       cmocka_unit_test(test_lengths_and_weights),
        cmocka_unit_test(test_longest_text),
    };
    return cmocka_run_group_tests_name("examples", tests, NULL, NULL);
}
