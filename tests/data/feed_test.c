/* Shuffled sentences: every epoch has each once, rows are filled in order from one stream, whoever reads which rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/feed.h"

enum { PARTS = 5, MOST = 40, WORDS = 9, V = 4000, ROWS = 3, SEGMENT = 7, STEPS = 120 };

/* Sentence i is `0 i+1 i+1 ...`, of 1 to WORDS words; parts of different sizes, one of them empty. */
struct corpus {
    struct text text;
    struct text_part parts[PARTS];
    uint16_t ids[PARTS][MOST * (WORDS + 1) + 1];
    uint32_t begin[PARTS][MOST + 1];
    int64_t sentences;
};

static int words_of(int64_t sentence) { return 1 + (int)(sentence * 7 % WORDS); }

static void corpus_init(struct corpus *corpus) {
    static const int sizes[PARTS] = {MOST, 1, 0, 13, 24};
    struct text_split *train = &corpus->text.splits[SPLIT_TRAIN];
    memset(corpus, 0, sizeof *corpus);
    corpus->text.vocabulary.size = corpus->text.ids = V;
    *train = (struct text_split){.path = "corpus", .parts = corpus->parts, .n_parts = PARTS};
    for (int p = 0; p < PARTS; ++p) {
        int64_t at = 0;
        for (int i = 0; i < sizes[p]; ++i) {
            int64_t sentence = corpus->sentences++;
            corpus->begin[p][i] = (uint32_t)at;
            corpus->ids[p][at++] = 0;
            for (int w = 0; w < words_of(sentence); ++w) corpus->ids[p][at++] = (uint16_t)(sentence + 1);
        }
        corpus->begin[p][sizes[p]] = (uint32_t)at;
        corpus->ids[p][at] = 0;
        corpus->parts[p] = (struct text_part){.first = train->symbols,
                                              .symbols = at + (p == PARTS - 1),
                                              .sentences = sizes[p],
                                              .begin = corpus->begin[p],
                                              .ids = corpus->ids[p],
                                              .width = 2,
                                              .path = "part"};
        train->symbols += corpus->parts[p].symbols;
    }
    train->sentences = corpus->sentences;
}

struct history {
    int32_t tokens[STEPS][ROWS][SEGMENT], targets[STEPS][ROWS][SEGMENT];
};

static void open_feed(struct feed *feed, const struct corpus *corpus) {
    assert_int_equal(feed_init(feed, &corpus->text, ROWS, SEGMENT, 17), STATUS_OK);
    assert_true(feed->shuffled);
    assert_int_equal(feed->places, corpus->sentences);
}

static void record(struct history *history, const struct corpus *corpus) {
    struct feed feed;
    open_feed(&feed, corpus);
    for (int s = 0; s < STEPS; ++s) {
        assert_int_equal(feed_read(&feed, 0, ROWS, history->tokens[s][0], history->targets[s][0]), STATUS_OK);
        assert_false(feed_advance(&feed));
    }
    feed_free(&feed);
}

/* Sentences in the order in which they were taken: a row takes one where its input is the mark. */
static int64_t starts(const struct history *history, int32_t *order) {
    int64_t n = 0;
    for (int s = 0; s < STEPS; ++s)
        for (int b = 0; b < ROWS; ++b)
            for (int t = 0; t < SEGMENT; ++t)
                if (history->tokens[s][b][t] == 0) order[n++] = history->targets[s][b][t] - 1;
    return n;
}

static void each_once_an_epoch(void **state) {
    (void)state;
    static struct corpus corpus;
    static struct history history;
    static int32_t order[STEPS * ROWS * SEGMENT];
    corpus_init(&corpus);
    record(&history, &corpus);
    int64_t n = starts(&history, order), S = corpus.sentences;
    assert_true(n > 3 * S);
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
        int seen[V] = {0}, same = 0;
        for (int64_t i = 0; i < S; ++i) {
            assert_in_range(order[epoch * S + i], 0, S - 1);
            assert_int_equal(seen[order[epoch * S + i]]++, 0);
            same += order[epoch * S + i] == order[i];
        }
        if (epoch) assert_true(same < S / 4); /* another order */
    }
}

/* Along a row: each sentence whole, its targets one further, the mark after its last word. */
static void rows_are_sentences(void **state) {
    (void)state;
    static struct corpus corpus;
    static struct history history;
    corpus_init(&corpus);
    record(&history, &corpus);
    for (int b = 0; b < ROWS; ++b) {
        int32_t sentence = -1, left = 0;
        for (int i = 0; i < STEPS * SEGMENT; ++i) {
            int32_t token = history.tokens[i / SEGMENT][b][i % SEGMENT];
            int32_t target = history.targets[i / SEGMENT][b][i % SEGMENT];
            if (left == 0) {
                assert_int_equal(token, 0);
                sentence = target;
                left = words_of(sentence - 1) + 1;
            } else {
                assert_int_equal(token, sentence);
            }
            assert_int_equal(target, --left ? sentence : 0);
        }
    }
}

/* Ranks read their rows alone, and from a cursor the rest is the same. */
static void by_rows_and_from_a_cursor(void **state) {
    (void)state;
    static struct corpus corpus;
    static struct history history;
    struct feed feed, later;
    int32_t tokens[ROWS][SEGMENT], targets[ROWS][SEGMENT];
    corpus_init(&corpus);
    record(&history, &corpus);
    open_feed(&feed, &corpus);
    for (int s = 0; s < STEPS; ++s) {
        open_feed(&later, &corpus);
        assert_true(feed_seek(&later, feed.epoch, feed.place, feed.rest));
        for (int b = ROWS; b-- > 0;) {
            assert_int_equal(feed_read(&later, b, 1, tokens[b], targets[b]), STATUS_OK);
            assert_int_equal(feed_read(&feed, b, 1, tokens[b], targets[b]), STATUS_OK);
            assert_memory_equal(tokens[b], history.tokens[s][b], sizeof tokens[b]);
            assert_memory_equal(targets[b], history.targets[s][b], sizeof targets[b]);
            assert_int_equal(feed_read(&later, b, 1, tokens[b], targets[b]), STATUS_OK);
            assert_memory_equal(tokens[b], history.tokens[s][b], sizeof tokens[b]);
        }
        feed_advance(&feed);
        feed_free(&later);
    }
    struct rest bad[ROWS] = {{0}};
    bad[1] = (struct rest){corpus.text.splits[SPLIT_TRAIN].symbols - 2, 5};
    assert_false(feed_seek(&feed, 0, 0, bad));
    assert_false(feed_seek(&feed, 0, corpus.sentences + 1, feed.rest));
    assert_false(feed_seek(&feed, 0, 0, NULL));
    feed_free(&feed);
}

/* A rank reads no symbols but its rows': all others may be damaged. */
static void reads_only_its_rows(void **state) {
    (void)state;
    static struct corpus corpus;
    static struct history history;
    struct feed feed;
    int32_t tokens[SEGMENT], targets[SEGMENT];
    corpus_init(&corpus);
    record(&history, &corpus);
    for (int p = 0; p < PARTS; ++p)
        for (uint32_t i = 0; i < corpus.parts[p].symbols; ++i) {
            bool mine = corpus.ids[p][i] == 0;
            for (int t = 0; t < SEGMENT; ++t)
                mine =
                    mine || history.tokens[0][1][t] == corpus.ids[p][i] || history.targets[0][1][t] == corpus.ids[p][i];
            if (!mine) corpus.ids[p][i] = V;
        }
    open_feed(&feed, &corpus);
    assert_int_equal(feed_read(&feed, 1, 1, tokens, targets), STATUS_OK);
    assert_memory_equal(tokens, history.tokens[0][1], sizeof tokens);
    assert_int_equal(feed_read(&feed, 0, ROWS, history.tokens[0][0], history.targets[0][0]), STATUS_DATA);
    status_clear();
    feed_free(&feed);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_once_an_epoch), cmocka_unit_test(rows_are_sentences),
                                       cmocka_unit_test(by_rows_and_from_a_cursor),
                                       cmocka_unit_test(reads_only_its_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
