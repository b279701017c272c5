#include "data/feed.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* Streams of permutations: parts of an epoch, and sentences of a part. */
enum { STREAM_PARTS = 0, STREAM_SENTENCES = 1 };

static const struct text_split *train_of(const struct feed *feed) { return &feed->text->splits[SPLIT_TRAIN]; }

/* ---- The order of sentences ---- */

static uint64_t stream_of(int64_t epoch, uint64_t stream) { return (uint64_t)epoch << 32 | stream; }

static const struct text_part *part_of(const struct feed *feed, const struct sentence_order *order) {
    return &train_of(feed)->parts[permutation_at(&order->parts, order->nth)];
}

/* At the first sentence of the nth part that has any. */
static void open_part(const struct feed *feed, struct sentence_order *order) {
    while (part_of(feed, order)->sentences == 0) order->nth++;
    const struct text_part *part = part_of(feed, order);
    order->index = 0;
    order->sentences =
        permutation_of(feed->seed, stream_of(order->epoch, STREAM_SENTENCES + (uint64_t)(part - train_of(feed)->parts)),
                       part->sentences);
}

static void begin_epoch(const struct feed *feed, struct sentence_order *order, int64_t epoch) {
    *order = (struct sentence_order){.epoch = epoch};
    order->parts = permutation_of(feed->seed, stream_of(epoch, STREAM_PARTS), train_of(feed)->n_parts);
    open_part(feed, order);
}

/* STATUS_DATA: the part's .idx file is damaged. */
static enum status take_sentence(const struct feed *feed, struct sentence_order *order, struct rest *rest) {
    if (order->taken == feed->places) begin_epoch(feed, order, order->epoch + 1);
    if (order->index == part_of(feed, order)->sentences) {
        order->nth++;
        open_part(feed, order);
    }
    const struct text_part *part = part_of(feed, order);
    int64_t i = permutation_at(&order->sentences, order->index++);
    order->taken++;
    if (part->begin[i] >= part->begin[i + 1] || part->begin[i + 1] > part->begin[part->sentences])
        return status_fail(STATUS_DATA, "%s: sentence %lld in its .idx file: expected tokens up to %u, found %u to %u",
                           part->path, (long long)i, part->begin[part->sentences], part->begin[i], part->begin[i + 1]);
    *rest = (struct rest){part->first + part->begin[i], part->begin[i + 1] - part->begin[i]};
    return STATUS_OK;
}

static void seek_order(const struct feed *feed, struct sentence_order *order, int64_t epoch, int64_t taken) {
    begin_epoch(feed, order, epoch);
    order->taken = taken;
    while (taken > part_of(feed, order)->sentences) {
        taken -= part_of(feed, order)->sentences;
        order->nth++;
        open_part(feed, order);
    }
    order->index = taken;
}

/* ---- The feed ---- */

static enum status init_sentences(struct feed *feed) {
    const struct text_split *train = train_of(feed);
    for (int64_t i = 0; i < train->n_parts; ++i) feed->places += train->parts[i].sentences;
    if (!feed->places)
        return status_fail(STATUS_DATA, "%s: expected at least one sentence for train, found none", train->path);
    feed->rest = calloc((size_t)feed->rows, sizeof *feed->rest);
    feed->next_rest = calloc((size_t)feed->rows, sizeof *feed->next_rest);
    if (!feed->rest || !feed->next_rest) FATAL("out of memory");
    return STATUS_OK;
}

enum status feed_init(struct feed *feed, const struct text *text, int64_t rows, int64_t segment, uint64_t seed) {
    const struct text_split *train = &text->splits[SPLIT_TRAIN];
    *feed = (struct feed){.text = text, .rows = rows, .segment = segment, .seed = seed};
    feed->shuffled = train->n_parts && train->parts[0].begin;
    if (feed->shuffled) return init_sentences(feed);
    enum status status = streams_init(&feed->streams, text, SPLIT_TRAIN, rows, segment, 0);
    feed->places = feed->streams.segments;
    return status;
}

void feed_free(struct feed *feed) {
    free(feed->rest);
    free(feed->next_rest);
    *feed = (struct feed){0};
}

static bool is_inside(const struct feed *feed, const struct rest *rest) {
    int64_t symbols = train_of(feed)->symbols;
    return rest->count >= 0 && rest->from >= 0 && rest->from < symbols && rest->count < symbols - rest->from;
}

bool feed_seek(struct feed *feed, int64_t epoch, int64_t place, const struct rest *rest) {
    if (epoch < 0 || place < 0 || place > feed->places || (place == feed->places && !feed->shuffled)) return false;
    if (feed->shuffled != (rest != NULL)) return false;
    for (int64_t b = 0; rest && b < feed->rows; ++b)
        if (!is_inside(feed, &rest[b])) return false;
    if (rest) memmove(feed->rest, rest, (size_t)feed->rows * sizeof *rest); /* may be the feed's own */
    feed->epoch = epoch;
    feed->place = place;
    return true;
}

/* One row of the batch: into `tokens` and `targets`, where they are wanted (not NULL). */
static enum status fill_row(struct feed *feed, struct rest *rest, int32_t *tokens, int32_t *targets) {
    for (int64_t filled = 0; filled < feed->segment;) {
        if (!rest->count) TRY(take_sentence(feed, &feed->next, rest));
        int64_t n = feed->segment - filled < rest->count ? feed->segment - filled : rest->count;
        if (tokens) {
            TRY(text_read(feed->text, SPLIT_TRAIN, rest->from, n, tokens + filled));
            TRY(text_read(feed->text, SPLIT_TRAIN, rest->from + 1, n, targets + filled));
        }
        *rest = (struct rest){rest->from + n, rest->count - n};
        filled += n;
    }
    return STATUS_OK;
}

enum status feed_read(struct feed *feed, int64_t first, int64_t count, int32_t *tokens, int32_t *targets) {
    int64_t L = feed->segment;
    CHECK(first >= 0 && count >= 0 && first + count <= feed->rows);
    if (!feed->shuffled) return streams_read(&feed->streams, feed->place, first, count, tokens, targets, NULL);
    seek_order(feed, &feed->next, feed->epoch, feed->place);
    memcpy(feed->next_rest, feed->rest, (size_t)feed->rows * sizeof *feed->rest);
    for (int64_t b = 0; b < feed->rows; ++b) {
        bool mine = b >= first && b < first + count;
        TRY(fill_row(feed, &feed->next_rest[b], mine ? tokens + (b - first) * L : NULL,
                     mine ? targets + (b - first) * L : NULL));
    }
    return STATUS_OK;
}

bool feed_advance(struct feed *feed) {
    if (feed->shuffled) {
        struct rest *swap = feed->rest;
        feed->rest = feed->next_rest;
        feed->next_rest = swap;
        feed->epoch = feed->next.epoch;
        feed->place = feed->next.taken;
        return false;
    }
    if (++feed->place < feed->places) return false;
    feed->place = 0;
    feed->epoch++;
    return true;
}
