/* Preparation against a plain reading of the same text: pieces of any size, threads, ranks; and what is read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/prepare.h"
#include "data/text.h"

enum { LINES = 300, MOST = 1 << 16 };

static uint32_t draw;
static uint32_t below(uint32_t n) {
    draw = draw * 1664525 + 1013904223;
    return (draw >> 8) % n;
}

/* Lines of few words and many, blank ones, all kinds of white space, UTF-8; few words often. */
static void write_text(const char *path, uint32_t seed) {
    static const char *const whites[] = {" ", "  ", "\t", " \v", "\f", " \r "};
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    draw = seed;
    for (int line = 0; line < LINES; line++) {
        uint32_t words = below(8) == 0 ? 0 : below(12);
        if (below(3) == 0) fputs(whites[below(5)], file);
        for (uint32_t i = 0; i < words; i++) {
            uint32_t word = below(1 + below(60));
            if (word == 7)
                fputs("<unk>", file);
            else
                fprintf(file, word % 9 == 8 ? "\xc3\xa9%u" : "w%u", word);
            if (i + 1 < words || below(2)) fputs(whites[below(i + 1 < words ? 6 : 5)], file);
        }
        fputc('\n', file);
    }
    assert_int_equal(fclose(file), 0);
}

static struct config config_of(enum data_kind kind, const char *folder) {
    struct config config = {.data = {.kind = kind, .newlines = NEWLINES_KEEP}};
    strcpy(config.data.train, "prepare_train.txt");
    strcpy(config.data.valid, "prepare_valid.txt");
    strcpy(config.data.prepared, folder);
    return config;
}

/* All stages, by ranks that take turns. */
static enum status prepare(const struct config *config, int ranks, int threads, int64_t piece_bytes) {
    enum status (*const stages[])(struct preparation *) = {prepare_begin, prepare_survey, prepare_vocabulary,
                                                           prepare_encode, prepare_end};
    struct preparation p[4] = {0};
    enum status status = STATUS_OK;
    for (int rank = 0; rank < ranks; rank++)
        p[rank] = (struct preparation){.config = config,
                                       .rank = rank,
                                       .ranks = ranks,
                                       .threads = threads,
                                       .tool = "test",
                                       .piece_bytes = piece_bytes};
    for (int stage = 0; stage < 5 && !status && !p[0].done; stage++)
        for (int rank = 0; rank < ranks && !status; rank++) status = stages[stage](&p[rank]);
    for (int rank = 0; rank < ranks; rank++) preparation_free(&p[rank]);
    return status;
}

static void remove_folder(const char *folder) {
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

/* ---- The plain reading ---- */

struct plain {
    char words[MOST][16]; /* tokens in order, marks too */
    int n, sentences, unknown;
};

/* words: each line and `<eos>`; lm1b: `<S>` before each line that has words, and at the end. */
static void read_plain(struct plain *plain, const char *path, bool sentences) {
    static char line[1 << 14];
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    *plain = (struct plain){0};
    while (fgets(line, sizeof line, file)) {
        bool first = true;
        for (char *word = strtok(line, " \t\v\f\r\n"); word; word = strtok(NULL, " \t\v\f\r\n"), first = false) {
            if (first && sentences) strcpy(plain->words[plain->n++], "<S>");
            plain->sentences += first && sentences;
            strcpy(plain->words[plain->n++], word);
        }
        if (!sentences) strcpy(plain->words[plain->n++], "<eos>");
    }
    if (sentences) strcpy(plain->words[plain->n++], "<S>");
    fclose(file);
}

static int count_of(const struct plain *plain, const char *word) {
    int count = 0;
    for (int i = 0; i < plain->n; i++) count += !strcmp(plain->words[i], word);
    return count;
}

/* Position of its first occurrence. */
static int first_of(const struct plain *plain, const char *word) {
    for (int i = 0; i < plain->n; i++)
        if (!strcmp(plain->words[i], word)) return i;
    return -1;
}

static void word_of(const struct text *text, int64_t symbol, char out[16]) {
    int64_t length;
    const char *word = vocabulary_symbol(&text->vocabulary, symbol, &length);
    assert_in_range(length, 1, 15);
    memcpy(out, word, (size_t)length);
    out[length] = '\0';
}

/* Specials, then by falling count, of equal ones the first; all words with the count, none else. */
static void check_vocabulary(const struct text *text, const struct plain *train, int specials, int min_count) {
    int distinct = 0, before = 1 << 30, place = -1;
    for (int i = 0; i < train->n; i++)
        distinct += first_of(train, train->words[i]) == i && strcmp(train->words[i], "<eos>") != 0 &&
                    strcmp(train->words[i], "<S>") != 0 && count_of(train, train->words[i]) >= min_count;
    assert_int_equal(text->vocabulary.size, distinct + specials);
    for (int64_t symbol = specials; symbol < text->vocabulary.size; symbol++) {
        char word[16];
        word_of(text, symbol, word);
        int count = count_of(train, word), first = first_of(train, word);
        assert_true(count >= min_count);
        assert_true(count < before || (count == before && first > place));
        before = count;
        place = first;
    }
}

static void check_split(const struct text *text, enum split s, const struct plain *plain, const char *unknown) {
    static int32_t symbols[MOST];
    const struct text_split *split = &text->splits[s];
    assert_int_equal(split->symbols, plain->n);
    assert_int_equal(split->sentences, plain->sentences);
    assert_int_equal(text_read(text, s, 0, split->symbols, symbols), STATUS_OK);
    for (int i = 0; i < plain->n; i++) {
        char word[16];
        int64_t known = vocabulary_find(&text->vocabulary, plain->words[i], (int64_t)strlen(plain->words[i]));
        word_of(text, symbols[i], word);
        assert_string_equal(word, known >= 0 ? plain->words[i] : unknown);
    }
    int64_t sentences = 0;
    for (int64_t i = 0; i < split->n_parts && split->sentences; i++)
        for (int64_t j = 0; j < split->parts[i].sentences; j++, sentences++)
            assert_int_equal(symbols[split->parts[i].first + split->parts[i].begin[j]], text->vocabulary.end);
    assert_int_equal(sentences, split->sentences);
}

/* ---- Tests ---- */

static void run_words(enum data_kind kind, int ranks, int threads, int64_t piece_bytes, int64_t min_count) {
    static struct plain train, valid;
    struct config config = config_of(kind, "prepare_folder");
    struct text text;
    config.data.min_count = min_count;
    remove_folder("prepare_folder");
    assert_int_equal(prepare(&config, ranks, threads, piece_bytes), STATUS_OK);
    assert_int_equal(text_open(&text, &config), STATUS_OK);
    read_plain(&train, "prepare_train.txt", kind == DATA_LM1B);
    read_plain(&valid, "prepare_valid.txt", kind == DATA_LM1B);
    check_vocabulary(&text, &train, kind == DATA_LM1B ? 2 : 1, (int)min_count);
    check_split(&text, SPLIT_TRAIN, &train, kind == DATA_LM1B ? "<UNK>" : "<unk>");
    check_split(&text, SPLIT_VALID, &valid, kind == DATA_LM1B ? "<UNK>" : "<unk>");
    assert_int_equal(text.splits[SPLIT_TEST].symbols, 0);
    text_close(&text);
}

static void test_pieces(void **state) {
    (void)state;
    const int64_t pieces[] = {150, 1000, 4096, 1 << 20}; /* shorter than lines, and longer than the text */
    write_text("prepare_train.txt", 1);
    write_text("prepare_valid.txt", 2);
    for (int i = 0; i < 4; i++) {
        run_words(DATA_WORDS, 1 + i % 3, 1 + i % 2, pieces[i], 1);
        run_words(DATA_LM1B, 3 - i % 3, 2, pieces[i], i % 2 ? 3 : 1);
    }
}

/* The same order as from the raw files; line feeds dropped or not. */
static void test_bytes(void **state) {
    (void)state;
    static int32_t raw_symbols[MOST], symbols[MOST];
    const enum data_kind kinds[] = {DATA_ENWIK8, DATA_TEXT};
    write_text("prepare_train.txt", 3);
    write_text("prepare_valid.txt", 4);
    for (int i = 0; i < 4; i++) {
        struct config config = config_of(kinds[i / 2], "prepare_folder"), raw_config = config;
        struct text text, raw;
        if (kinds[i / 2] == DATA_ENWIK8) config.data.valid[0] = '\0';
        config.data.newlines = raw_config.data.newlines = i % 2 ? NEWLINES_DROP : NEWLINES_KEEP;
        raw_config.data.prepared[0] = '\0';
        remove_folder("prepare_folder");
        assert_int_equal(prepare(&config, 1 + i % 3, 2, 700), STATUS_OK);
        assert_int_equal(text_open(&text, &config), STATUS_OK);
        assert_int_equal(text_open(&raw, &raw_config), STATUS_OK);
        assert_true(vocabulary_same(&text.vocabulary, &raw.vocabulary));
        for (int s = 0; s < SPLITS; s++) {
            int64_t n = raw.splits[s].symbols;
            assert_int_equal(text.splits[s].symbols, n);
            assert_int_equal(text_read(&text, (enum split)s, 0, n, symbols), STATUS_OK);
            assert_int_equal(text_read(&raw, (enum split)s, 0, n, raw_symbols), STATUS_OK);
            assert_memory_equal(symbols, raw_symbols, (size_t)n * sizeof *symbols);
            for (int64_t from = 0; from < n; from += 211) {
                int64_t count = n - from < 97 ? n - from : 97;
                assert_int_equal(text_read(&text, (enum split)s, from, count, symbols), STATUS_OK);
                assert_memory_equal(symbols, raw_symbols + from, (size_t)count * sizeof *symbols);
            }
        }
        text_close(&text);
        text_close(&raw);
    }
}

/* A vocabulary of one's own: its first fields, specials before them. */
static void test_vocabulary_file(void **state) {
    (void)state;
    struct config config = config_of(DATA_LM1B, "prepare_folder");
    struct text text;
    const char *expected[] = {"<UNK>", "<S>", "w3", "w1"};
    FILE *file = fopen("prepare_words.txt", "w");
    assert_non_null(file);
    fputs("<S> 9\n w3\t5\nw1\n", file);
    assert_int_equal(fclose(file), 0);
    write_text("prepare_train.txt", 5);
    write_text("prepare_valid.txt", 6);
    strcpy(config.data.vocabulary, "prepare_words.txt");
    remove_folder("prepare_folder");
    assert_int_equal(prepare(&config, 2, 1, 1000), STATUS_OK);
    assert_int_equal(text_open(&text, &config), STATUS_OK);
    assert_int_equal(text.vocabulary.size, 4);
    for (int i = 0; i < 4; i++) {
        char word[16];
        word_of(&text, i, word);
        assert_string_equal(word, expected[i]);
    }
    assert_int_equal(text.vocabulary.end, 1);
    assert_int_equal(text.vocabulary.unknown, 0);
    text_close(&text);
}

static int stop_after;
static bool stop(void) { return stop_after-- <= 0; }

/* Asked to stop after any number of pieces, and started again, it comes to the same files. */
static void test_goes_on(void **state) {
    (void)state;
    struct config config = config_of(DATA_LM1B, "prepare_folder"), whole = config_of(DATA_LM1B, "prepare_whole");
    write_text("prepare_train.txt", 7);
    write_text("prepare_valid.txt", 8);
    remove_folder("prepare_folder");
    remove_folder("prepare_whole");
    assert_int_equal(prepare(&whole, 1, 1, 500), STATUS_OK);
    enum status status = STATUS_REQUEUE;
    int64_t kept = 0, starts = 0;
    for (; status == STATUS_REQUEUE; starts++) {
        enum status (*const stages[])(struct preparation *) = {prepare_begin, prepare_survey, prepare_vocabulary,
                                                               prepare_encode, prepare_end};
        struct preparation p = {
            .config = &config, .ranks = 1, .threads = 1, .tool = "test", .piece_bytes = 500, .asked = stop};
        stop_after = 5;
        status = STATUS_OK;
        for (int stage = 0; stage < 5 && !status; stage++) status = stages[stage](&p);
        assert_true(p.kept >= kept || p.units < 2);
        preparation_free(&p);
        assert_in_range(starts, 0, 100);
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(starts > 3);
    assert_int_equal(system("diff -r prepare_folder prepare_whole"), 0);
    assert_int_equal(prepare(&config, 1, 1, 500), STATUS_OK); /* nothing to do */
    config.data.min_count = 2;
    assert_int_equal(prepare(&config, 1, 1, 500), STATUS_CONFIG);
    assert_non_null(strstr(status_message(), "data.min_count 2, there 3"));
    status_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_vocabulary_file),
        cmocka_unit_test(test_goes_on),
    };
    return cmocka_run_group_tests_name("prepare", tests, NULL, NULL);
}
