/* Character noise: nothing at rate 0, each operation on a word by hand, its share, and the symbols it may use. */
#include "data/noise.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"

enum { LONG = 30000 };

static void open_text(struct text *text, const char *bytes, size_t size, enum newlines newlines) {
    struct config config = {.data = {.kind = DATA_TEXT, .newlines = newlines}};
    FILE *file = fopen("noise.txt", "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    strcpy(config.data.train, "noise.txt");
    strcpy(config.data.valid, "noise.txt");
    assert_int_equal(text_open(text, &config), STATUS_OK);
}

/* The symbols of the validation split; the caller frees them. */
static int32_t *symbols_of(const struct text *text, int64_t *n) {
    *n = text->splits[SPLIT_VALID].symbols;
    int32_t *symbols = malloc((size_t)(*n + 1) * sizeof *symbols);
    assert_non_null(symbols);
    text_read(text, SPLIT_VALID, 0, *n, symbols);
    return symbols;
}

/* Seven letters and line feeds. */
static void open_long(struct text *text, enum newlines newlines) {
    static char bytes[LONG];
    uint32_t draw = 1;
    for (int i = 0; i < LONG; i++) {
        draw = draw * 1664525 + 1013904223;
        bytes[i] = (draw >> 16) % 5 == 0 ? '\n' : (char)('a' + (draw >> 20) % 7);
    }
    open_text(text, bytes, LONG, newlines);
}

static void test_rate_0(void **state) {
    (void)state;
    for (int newlines = NEWLINES_DROP; newlines <= NEWLINES_KEEP; newlines++) {
        struct text text;
        int64_t n, m;
        open_long(&text, (enum newlines)newlines);
        int32_t *before = symbols_of(&text, &n);
        assert_int_equal(noise_split(&text, SPLIT_VALID, 0, 3), STATUS_OK);
        int32_t *after = symbols_of(&text, &m);
        assert_int_equal(m, n);
        assert_memory_equal(after, before, (size_t)n * sizeof *before);
        assert_null(text.splits[SPLIT_TRAIN].noised);
        free(before);
        free(after);
        text_close(&text);
    }
}

/* What docs/step-file.md says of a place: 0 swap, 1 drop, 2 insert, 3 not hit. */
static int operation_at(int64_t seed, uint32_t place, double rate, int V, int *inserted) {
    uint32_t words[4];
    rng_words(words, rng_place((uint64_t)seed, 0, RNG_NOISE, 0, 0), place, 0);
    *inserted = (int)(words[2] / 4294967296.0 * V);
    return words[0] / 4294967296.0 < rate ? (int)(words[1] / 4294967296.0 * 3) : 3;
}

/* Looks for a seed that does this to the four places, and compares; '#' is the inserted symbol. */
static void expect(const char *operations, const char *expected) {
    const double rate = 0.5;
    int64_t n, seed = -1;
    int inserted[4], found = 0;
    while (found < 4 && ++seed < 100000)
        for (found = 0; found < 4; found++)
            if (operation_at(seed, (uint32_t)found, rate, 4, &inserted[found]) != operations[found] - '0') break;
    assert_int_equal(found, 4);
    struct text text;
    open_text(&text, "\na\nbc\n\nd", 8, NEWLINES_DROP);
    assert_int_equal(noise_split(&text, SPLIT_VALID, rate, seed), STATUS_OK);
    int32_t *symbols = symbols_of(&text, &n);
    assert_int_equal(n, strlen(expected));
    int place = 0; /* of the next insertion */
    for (int64_t i = 0; i < n; i++) {
        int symbol = expected[i] - 'a';
        if (expected[i] == '#') {
            while (operations[place] != '2') place++;
            symbol = inserted[place++];
        }
        assert_int_equal(symbols[i], symbol);
    }
    free(symbols);
    text_close(&text);
}

static void test_by_hand(void **state) {
    (void)state;
    expect("3333", "abcd");
    expect("3033", "acbd");  /* swap */
    expect("3133", "acd");   /* drop */
    expect("3233", "a#bcd"); /* insert */
    expect("0033", "bcad");  /* twice on */
    expect("3330", "abcd");  /* nothing follows the last */
    expect("0133", "bcd");   /* a has gone to the place that is dropped */
    expect("3332", "abc#d");
    expect("2222", "#a#b#c#d");
    expect("1111", "");
}

/* At almost 1 all places are hit, a third each; the text keeps its length but for chance. */
static void test_shares(void **state) {
    (void)state;
    struct text text;
    int64_t n, m;
    int counts[4] = {0}, inserted;
    open_long(&text, NEWLINES_DROP);
    int32_t *before = symbols_of(&text, &n);
    assert_int_equal(noise_split(&text, SPLIT_VALID, 1 - 1e-9, 5), STATUS_OK);
    int32_t *after = symbols_of(&text, &m);
    for (int64_t i = 0; i < n; i++) counts[operation_at(5, (uint32_t)i, 1, 7, &inserted)]++;
    for (int o = 0; o < 3; o++) assert_in_range(counts[o], n / 3 - 350, n / 3 + 350); /* more than 4 deviations */
    assert_int_equal(m, n - counts[1] + counts[2]);
    int64_t seen[7] = {0};
    for (int64_t i = 0; i < m; i++) {
        assert_in_range(after[i], 0, 6);
        seen[after[i]]++;
    }
    for (int s = 0; s < 7; s++) assert_true(seen[s] > m / 10);
    free(before);
    free(after);
    text_close(&text);

    open_long(&text, NEWLINES_KEEP);
    assert_int_equal(noise_split(&text, SPLIT_VALID, 0.1, 5), STATUS_OK);
    int hits = 0;
    for (uint32_t i = 0; i < LONG; i++) hits += operation_at(5, i, 0.1, 8, &inserted) < 3;
    assert_in_range(hits, LONG / 10 - 250, LONG / 10 + 250);
    text_close(&text);
}

static void test_seed(void **state) {
    (void)state;
    int32_t *found[3];
    int64_t n[3];
    for (int i = 0; i < 3; i++) {
        struct text text;
        open_long(&text, NEWLINES_KEEP);
        assert_int_equal(noise_split(&text, SPLIT_VALID, 0.2, i == 2 ? 8 : 7), STATUS_OK);
        found[i] = symbols_of(&text, &n[i]);
        text_close(&text);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(found[0], found[1], (size_t)n[0] * sizeof *found[0]);
    assert_true(n[0] != n[2] || memcmp(found[0], found[2], (size_t)n[0] * sizeof *found[0]));
    for (int i = 0; i < 3; i++) free(found[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate_0),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_seed),
    };
    return cmocka_run_group_tests_name("noise", tests, NULL, NULL);
}
