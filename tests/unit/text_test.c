#include "data/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/block.h"

enum { LONG = 20011 }; /* several blocks of the line feed index, and part of one */

static void write_file(const char *path, const char *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static struct config config_of(enum data_kind kind, const char *train, const char *valid, const char *test) {
    struct config config = {.data = {.kind = kind, .newlines = NEWLINES_KEEP}};
    strcpy(config.data.train, train);
    strcpy(config.data.valid, valid);
    strcpy(config.data.test, test);
    return config;
}

/* Letters with line feeds at random, in runs too, and one stretch of them longer than a block. */
static void make_text(char *bytes) {
    uint32_t draw = 1;
    for (int i = 0; i < LONG; i++) {
        draw = draw * 1664525 + 1013904223;
        bytes[i] = (draw >> 16) % 5 == 0 || (i >= 6000 && i < 12500) ? '\n' : (char)('a' + (draw >> 20) % 7);
    }
}

static void test_alphabet(void **state) {
    (void)state;
    struct text text;
    write_file("text_train.txt", "cab\n", 4);
    write_file("text_valid.txt", "b\xff", 2);
    write_file("text_test.txt", "\0b", 2);
    struct config config = config_of(DATA_TEXT, "text_train.txt", "text_valid.txt", "text_test.txt");
    assert_int_equal(text_open(&text, &config), STATUS_OK);
    assert_int_equal(text.vocabulary.size, 6); /* 0, line feed, a, b, c, 255 */
    int32_t symbols[4];
    text_read(&text, SPLIT_TRAIN, 0, 4, symbols);
    const int32_t train[] = {4, 2, 3, 1};
    assert_memory_equal(symbols, train, sizeof train);
    text_read(&text, SPLIT_VALID, 1, 1, symbols);
    assert_int_equal(symbols[0], 5);
    for (int s = 0; s < text.vocabulary.size; s++)
        assert_int_equal(text.vocabulary.symbol_of[text.vocabulary.byte_of[s]], s);
    assert_int_equal(text.vocabulary.symbol_of['d'], -1);
    text_close(&text);

    config.data.newlines = NEWLINES_DROP;
    config.data.test[0] = '\0';
    assert_int_equal(text_open(&text, &config), STATUS_OK);
    assert_int_equal(text.vocabulary.size, 4);
    assert_int_equal(text.vocabulary.symbol_of['\n'], -1);
    assert_int_equal(text.splits[SPLIT_TRAIN].symbols, 3);
    assert_int_equal(text.splits[SPLIT_TEST].symbols, 0);
    text_close(&text);
}

/* enwik8 is cut by bytes, before line feeds are dropped. */
static void test_one_file_is_cut(void **state) {
    (void)state;
    struct text text;
    char bytes[40];
    memset(bytes, 'x', sizeof bytes);
    bytes[35] = bytes[36] = '\n';
    bytes[38] = 'y';
    write_file("text_whole", bytes, sizeof bytes);
    struct config config = config_of(DATA_ENWIK8, "text_whole", "", "");
    config.data.newlines = NEWLINES_DROP;
    assert_int_equal(text_open(&text, &config), STATUS_OK);
    assert_int_equal(text.splits[SPLIT_TRAIN].size, 36);
    assert_int_equal(text.splits[SPLIT_TRAIN].symbols, 35);
    assert_int_equal(text.splits[SPLIT_VALID].symbols, 1);
    assert_int_equal(text.splits[SPLIT_TEST].symbols, 2);
    int32_t symbols[2];
    text_read(&text, SPLIT_TEST, 0, 2, symbols);
    assert_int_equal(symbols[0], 1);
    assert_int_equal(symbols[1], 0);
    text_close(&text);
}

/* The symbols of the text, line feeds dropped or kept, one after the other. */
static int expected_symbols(const char *bytes, int drop, int32_t *symbols) {
    int n = 0;
    for (int i = 0; i < LONG; i++) {
        if (bytes[i] != '\n')
            symbols[n++] = bytes[i] - 'a' + !drop;
        else if (!drop)
            symbols[n++] = 0;
    }
    return n;
}

static void test_read_anywhere(void **state) {
    (void)state;
    static char bytes[LONG];
    static int32_t expected[LONG], found[LONG];
    make_text(bytes);
    write_file("text_long", bytes, LONG);
    for (int drop = 0; drop < 2; drop++) {
        struct config config = config_of(DATA_TEXT, "text_long", "text_long", "");
        config.data.newlines = drop ? NEWLINES_DROP : NEWLINES_KEEP;
        struct text text;
        assert_int_equal(text_open(&text, &config), STATUS_OK);
        int n = expected_symbols(bytes, drop, expected);
        assert_int_equal(text.splits[SPLIT_VALID].symbols, n);
        assert_int_equal(text.vocabulary.size, 7 + !drop);
        for (int from = 0; from <= n; from += 37) {
            int count = n - from < 301 ? n - from : 301;
            text_read(&text, SPLIT_VALID, from, count, found);
            assert_memory_equal(found, expected + from, (size_t)count * sizeof *found);
        }
        for (int from = 0; from < n; from++) {
            text_read(&text, SPLIT_TRAIN, from, 1, found);
            assert_int_equal(found[0], expected[from]);
        }
        text_close(&text);
    }
}

/* Every row of every segment against its definition. */
static void check_streams(const struct text *text, const int32_t *symbols, int n, int rows, int segment,
                          int keep_last) {
    struct streams streams;
    assert_int_equal(streams_init(&streams, text, SPLIT_TRAIN, rows, segment, keep_last), STATUS_OK);
    int64_t length = n / rows, predicted = 0;
    int32_t *tokens = malloc(sizeof *tokens * (size_t)(rows * segment)),
            *targets = malloc(sizeof *targets * (size_t)(rows * segment));
    for (int64_t i = 0; i < streams.segments; i++) {
        int64_t first = rows / 3, count = rows - first; /* as a rank that holds the last rows */
        int64_t width, none;
        assert_int_equal(streams_read(&streams, i, first, count, tokens, targets, &width), STATUS_OK);
        assert_int_equal(streams_read(&streams, i, rows, 0, NULL, NULL, &none), STATUS_OK);
        assert_int_equal(none, width);
        assert_true(width == segment || (keep_last && i == streams.segments - 1 && width > 0));
        for (int64_t row = 0; row < count; row++)
            for (int64_t t = 0; t < width; t++) {
                int64_t at = (first + row) * length + i * segment + t;
                assert_int_equal(tokens[row * width + t], symbols[at]);
                assert_int_equal(targets[row * width + t], symbols[at + 1]);
            }
        predicted += width;
    }
    assert_int_equal(predicted, keep_last ? length - 1 : (length - 1) / segment * segment);
    free(tokens);
    free(targets);
}

static void test_streams(void **state) {
    (void)state;
    static char bytes[LONG];
    static int32_t symbols[LONG];
    make_text(bytes);
    write_file("text_long", bytes, LONG);
    for (int drop = 0; drop < 2; drop++) {
        struct config config = config_of(DATA_TEXT, "text_long", "text_long", "");
        config.data.newlines = drop ? NEWLINES_DROP : NEWLINES_KEEP;
        struct text text;
        assert_int_equal(text_open(&text, &config), STATUS_OK);
        int n = expected_symbols(bytes, drop, symbols);
        for (int keep_last = 0; keep_last < 2; keep_last++) {
            check_streams(&text, symbols, n, 1, 128, keep_last);
            check_streams(&text, symbols, n, 7, 64, keep_last);
            check_streams(&text, symbols, n, 10, n / 10 - 1, keep_last); /* one segment, exactly */
            check_streams(&text, symbols, n, 44, 1, keep_last);
        }
        text_close(&text);
    }
}

static void expect_error(const struct config *config, const char *message) {
    struct text text;
    status_clear();
    assert_int_equal(text_open(&text, config), STATUS_DATA);
    assert_string_equal(status_message(), message);
    status_clear();
}

static void test_errors(void **state) {
    (void)state;
    write_file("text_some", "some text", 9);
    write_file("text_empty", "", 0);
    struct config config = config_of(DATA_TEXT, "", "text_some", "");
    expect_error(&config, "data.train: expected the path of a text file, found none");
    config = config_of(DATA_TEXT, "text_some", "text_missing", "");
    expect_error(&config, "data.valid: text_missing: expected a readable file, found: No such file or directory");
    config = config_of(DATA_TEXT, "text_some", "text_some", "text_empty");
    expect_error(&config, "data.test: text_empty: expected text, found an empty file");
    config = config_of(DATA_TEXT8, ".", "", "");
    expect_error(&config, "data.train: .: expected a file, found a folder");
}

static void test_too_short(void **state) {
    (void)state;
    struct text text;
    struct streams streams;
    write_file("text_some", "some text", 9);
    struct config config = config_of(DATA_TEXT, "text_some", "text_some", "");
    assert_int_equal(text_open(&text, &config), STATUS_OK);
    assert_int_equal(streams_init(&streams, &text, SPLIT_TRAIN, 3, 2, 0), STATUS_OK);
    assert_int_equal(streams_init(&streams, &text, SPLIT_TRAIN, 3, 3, 0), STATUS_DATA);
    assert_string_equal(status_message(),
                        "text_some: too short for train: expected at least 12 symbols (3 rows of 4), found 9");
    status_clear();
    assert_int_equal(streams_init(&streams, &text, SPLIT_VALID, 4, 100, 1), STATUS_OK);
    assert_int_equal(streams_init(&streams, &text, SPLIT_VALID, 5, 100, 1), STATUS_DATA);
    assert_string_equal(status_message(),
                        "text_some: too short for valid: expected at least 10 symbols (5 rows of 2), found 9");
    status_clear();
    assert_int_equal(streams_init(&streams, &text, SPLIT_TEST, 1, 1, 1), STATUS_DATA);
    assert_string_equal(status_message(),
                        "data.test: too short for test: expected at least 2 symbols (1 rows of 2), found 0");
    status_clear();
    text_close(&text);
}

static void test_blocks(void **state) {
    (void)state;
    for (int64_t parts = 1; parts < 9; parts++)
        for (int64_t total = 0; total < 30; total++) {
            int64_t next = 0;
            for (int64_t part = 0; part < parts; part++) {
                assert_int_equal(block_first(total, parts, part), next);
                assert_int_equal(block_count(total, parts, part), total / parts + (part < total % parts));
                next += block_count(total, parts, part);
            }
            assert_int_equal(next, total);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alphabet), cmocka_unit_test(test_one_file_is_cut), cmocka_unit_test(test_read_anywhere),
        cmocka_unit_test(test_streams),  cmocka_unit_test(test_errors),          cmocka_unit_test(test_too_short),
        cmocka_unit_test(test_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
