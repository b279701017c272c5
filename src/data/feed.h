/* Where the next training batch of a language model comes from, the same on any number of ranks: ordered streams
 * (text.h), or for lm1b rows that are filled from one stream of shuffled sentences (docs/data.md, Order). */
#ifndef VQMOE_FEED_H
#define VQMOE_FEED_H

#include "data/permutation.h"
#include "data/text.h"

/* What is left of the sentence that a row is in: symbol number in the split of its next input, and how many inputs. */
struct rest {
    int64_t from, count;
};

/* Sentences of an epoch: parts in a permuted order, in each its sentences in a permuted order. A place in it is the
 * number of sentences taken; nobody holds the order itself. */
struct sentence_order {
    int64_t epoch, taken; /* of all sentences of the split */
    int64_t nth, index;   /* of the permuted parts the nth, of its permuted sentences the next */
    struct permutation parts, sentences;
};

struct feed {
    const struct text *text;
    int64_t rows, segment; /* B global, L */
    int64_t epoch, place;  /* the cursor: the next segment of the streams, or sentences taken of the epoch */
    int64_t places;        /* of an epoch: segments, or sentences */
    bool shuffled;
    struct streams streams; /* where it is not shuffled */

    uint64_t seed;
    struct rest *rest, *next_rest; /* [rows] shuffled: before the next batch, and after it */
    struct sentence_order next;    /* after it */
};

/* The training split of text, which must outlive the feed; shuffled where its sentences are known. STATUS_DATA: too
 * short for one batch. */
enum status feed_init(struct feed *feed, const struct text *text, int64_t rows, int64_t segment, uint64_t seed);
void feed_free(struct feed *feed);
/* Goes on from a cursor; rest [rows], NULL where it is not shuffled. false: there is no such place. */
bool feed_seek(struct feed *feed, int64_t epoch, int64_t place, const struct rest *rest);

/* Of the batch at the cursor the rows [first, first + count): tokens and targets [count, L]. A rank reads no other
 * rows' symbols. The cursor stays. STATUS_DATA: of text_read. */
enum status feed_read(struct feed *feed, int64_t first, int64_t count, int32_t *tokens, int32_t *targets);
/* To the next batch, after feed_read of this one; true: a new epoch begins, with empty memory. Of shuffled sentences
 * memory runs on, and rows take the next epoch's sentences as soon as an epoch has no more. */
bool feed_advance(struct feed *feed);

#endif
