/* The choices a pass makes: recorded from one run, replayed in another, hashed. Argmin and top-k are discontinuous, so
 * two runs that differ only in rounding part for good at the first tie; with replayed routes they can be held against
 * each other step by step. */
#ifndef VQMOE_ROUTES_H
#define VQMOE_ROUTES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/real.h"

enum route_path { ROUTE_EXPERTS, ROUTE_CODES, ROUTE_PATHS };

/* The choices of one step on this rank's tokens; the caller owns the arrays. */
struct routes {
    bool replay;                    /* overwrite the model's choices, else record them */
    int64_t at;                     /* tokens of earlier micro-batches */
    int32_t **choices[ROUTE_PATHS]; /* [layers][tokens, k or 1]; NULL for a path that is absent */
    int64_t flips;                  /* replayed choices that the model would have made otherwise */
    double widest;                  /* largest relative gap among the flips: |s - s'| / max(|s|, |s'|) */
};

/* After the model chose: choices [N, K] by scores [N, M] (the best is the largest, or for codes the smallest). NULL
 * routes: nothing. */
void routes_apply(struct routes *routes, enum route_path path, int layer, int32_t *choices, const real *scores,
                  int64_t N, int64_t K, int64_t M);

/* Sum over tokens of a hash of (g, choices): independent of how tokens lie on ranks; add over ranks. */
uint64_t routes_hash(const int32_t *choices, int64_t first, int64_t N, int64_t K);

#endif
