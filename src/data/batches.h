/* Which examples make up a batch: texts of like length together, so that little is padded. The same on every rank, and
 * a function of seed, epoch and batch alone: (epoch, batch) is the whole cursor. */
#ifndef VQMOE_BATCHES_H
#define VQMOE_BATCHES_H

#include <stdbool.h>
#include <stdint.h>

#include "data/examples.h"

struct batches {
    const struct examples *examples;
    int64_t rows;   /* B, global */
    int64_t length; /* symbols of the longest row */
    uint64_t seed;
    bool sorted; /* for evaluation: one order for all epochs */
    struct batch_member {
        int64_t tokens, place, example; /* place in the order before sorting */
    } * members;                        /* [room] of the window at hand, owned */
    int64_t epoch, window;              /* at hand; -1: none */
};

/* An epoch has each example once, its last batch the rest that does not fill one. Training: a permutation of all
 * examples by (seed, epoch), cut into windows of 64 batches; each window is sorted by length and cut into batches,
 * which a second permutation puts in order. `sorted`: all examples by length, of equal lengths in file order.
 * `examples` must outlive the batches. STATUS_INTERNAL: memory. */
enum status batches_init(struct batches *batches, const struct examples *examples, int64_t rows, int64_t length,
                         uint64_t seed, bool sorted);
void batches_free(struct batches *batches);

int64_t batches_per_epoch(const struct batches *batches);

/* The examples of batch `number` of an epoch, shortest first: [rows] numbers; returns how many. Fast where batches are
 * asked for in order. */
int64_t batches_read(struct batches *batches, int64_t epoch, int64_t number, int64_t *examples);

#endif
