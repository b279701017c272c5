/* What all layers of one forward and backward pass share. */
#ifndef VQMOE_PASS_H
#define VQMOE_PASS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "kernels/ops.h"

struct pass {
    struct arena *arena; /* activations, kept from the forward until the backward is over */
    bool train;          /* dropout, and everything the backward needs */
    uint64_t seed;
    int64_t step;            /* number of this update; outside of training: updates done */
    int64_t rows, row_first; /* batch rows of this rank, global number of the first */
    int64_t positions;       /* T of this segment */
    int64_t tokens;          /* rows * positions */
    int64_t tokens_micro;    /* the same over all ranks: one micro-batch */
    int64_t tokens_global;   /* over all ranks and micro-batches: what means divide by */
    double dropout, attention_dropout;
    const int32_t *ids; /* [tokens] the symbols; they live until the backward */
};

/* What a mean over this micro-batch counts for in the mean over the step. */
static inline double pass_share(const struct pass *pass) {
    return (double)pass->tokens_micro / (double)pass->tokens_global;
}

/* g of this rank's first token. */
static inline int64_t pass_token_first(const struct pass *pass) { return pass->row_first * pass->positions; }

static inline struct dropout pass_dropout(const struct pass *pass, enum rng_site site, int layer, int lane) {
    double p = site == RNG_ATTENTION ? pass->attention_dropout : pass->dropout;
    return (struct dropout){pass->train ? p : 0, rng_place(pass->seed, pass->step, site, layer, lane)};
}

#endif
