/* Loss over a whole split. */
#ifndef VQMOE_EVALUATE_H
#define VQMOE_EVALUATE_H

#include "data/text.h"
#include "model/lm.h"

struct evaluation {
    double loss;    /* nats per token, weighted over all targets */
    int64_t tokens; /* targets scored: B (n - 1) */
};

/* eval.batch streams, eval.segment, eval.memory; no dropout; after `step` updates; in file order, the short last
 * segment included. arena: for activations. The same figure on any number of ranks, to rounding. Collective over the
 * world; STATUS_DATA where the split is too short. */
enum status evaluate(struct evaluation *result, struct lm *lm, const struct text *text, enum split split, int64_t step,
                     struct pass_memory *arenas);

#endif
