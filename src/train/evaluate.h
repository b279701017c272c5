/* Loss over a whole split. */
#ifndef VQMOE_EVALUATE_H
#define VQMOE_EVALUATE_H

#include "data/text.h"
#include "model/model.h"
#include "train/control.h"

struct evaluation {
    double loss;    /* nats per token, weighted over all targets */
    int64_t tokens; /* targets scored: B (n - 1) */
    int stop;       /* of struct verdict, with STATUS_REQUEUE */
};

/* eval.batch streams, eval.segment, eval.memory; no dropout; after `step` updates; in file order, the short last
 * segment included. arenas: for activations. The same figure on any number of ranks, to rounding. Where control, which
 * may be NULL, is asked to stop it does, without a figure, and returns STATUS_REQUEUE. Collective over the world;
 * STATUS_DATA where the split is too short. */
enum status evaluate(struct evaluation *result, struct model *model, const struct text *text, enum split split,
                     int64_t step, struct pass_memory *arenas, const struct control *control);

#endif
