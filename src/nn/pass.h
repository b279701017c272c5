/* What all layers of one forward and backward pass share. */
#ifndef VQMOE_PASS_H
#define VQMOE_PASS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/arena.h"
#include "base/device.h"
#include "kernels/ops.h"

struct pass {
    struct arena *arena; /* device memory: activations, kept from the forward until the backward is over */
    struct arena *host;  /* pinned memory of the host: counts, and what is fetched from the device */
    double *sums;        /* [PASS_SUMS + layers PASS_SUMS], device memory: what losses are made of (pass_sum) */
    bool train;          /* dropout, and everything the backward needs */
    uint64_t seed;
    int64_t step;            /* number of this update; outside of training: updates done */
    int64_t rows, row_first; /* batch rows of this rank, global number of the first */
    int64_t positions;       /* T of this segment; of ragged rows the longest of the micro-batch */
    int64_t tokens;          /* rows * positions; of ragged rows those that are there */
    int64_t tokens_micro;    /* the same over all ranks: one micro-batch */
    int64_t ranks;           /* that share a micro-batch */
    int64_t tokens_global;   /* over all ranks and micro-batches: what means divide by */
    double dropout, attention_dropout;
    const int32_t *ids;          /* [tokens] the symbols, device memory; they live until the backward, as on the host */
    const int32_t *ids_host;     /* [tokens] */
    const real *shares;          /* [rows] of a classifier's losses in their mean (nn/head.h), device memory */
    const struct ragged *ragged; /* rows of different lengths (nn/ragged.h); NULL: all have T tokens */
};

/* The memory of passes that follow one another. Zeroed is empty. */
struct pass_memory {
    struct arena here, host;
};
static inline void pass_memory_reset(struct pass_memory *memory) {
    memory->host.pinned = true;
    arena_reset(&memory->here);
    arena_reset(&memory->host);
}
static inline void pass_memory_free(struct pass_memory *memory) {
    arena_free(&memory->here);
    arena_free(&memory->host);
}

/* One number per layer and kind, which an operation leaves and model_loss reads; layer -1: of the model. */
enum pass_sum { SUM_TASK = 0, SUM_VQ = 0, SUM_BALANCE, SUM_DISTILL, PASS_SUMS };
static inline double *pass_sum(const struct pass *pass, int layer, enum pass_sum kind) {
    return pass->sums + (layer + 1) * PASS_SUMS + (int)kind;
}

/* A copy of the host's integers in the device's memory, in the pass's arena. */
static inline const int32_t *pass_upload(const struct pass *pass, const int32_t *host, int64_t n) {
    int32_t *here = ARENA_ARRAY(pass->arena, int32_t, n), *pinned = ARENA_ARRAY(pass->host, int32_t, n);
    memcpy(pinned, host, (size_t)n * sizeof *here); /* or the upload would wait */
    device->upload(here, pinned, (size_t)n * sizeof *here);
    return here;
}

/* What a mean over this micro-batch counts for in the mean over the step. */
static inline double pass_share(const struct pass *pass) {
    return (double)pass->tokens_micro / (double)pass->tokens_global;
}

/* g of this rank's first token. */
int64_t pass_token_first(const struct pass *pass);

/* Rows of what stands for S positions of each batch row: memory and segment. */
static inline int64_t pass_keys(const struct pass *pass, int64_t S) {
    return pass->ragged ? pass->tokens : pass->rows * S;
}

static inline struct dropout pass_dropout(const struct pass *pass, enum rng_site site, int layer, int lane) {
    double p = site == RNG_ATTENTION ? pass->attention_dropout : pass->dropout;
    return (struct dropout){pass->train ? p : 0, rng_place(pass->seed, pass->step, site, layer, lane)};
}

#endif
