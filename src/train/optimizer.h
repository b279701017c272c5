/* Adam over the whole parameter table, cosine schedule with linear warm-up, clipping by one global norm.
 * docs/method.md, section 4. */
#ifndef VQMOE_OPTIMIZER_H
#define VQMOE_OPTIMIZER_H

#include "model/model.h"

/* Learning rate of update s, from 0: lr/2 (1 + cos(pi s / N)), after `warmup` linear updates (the first at lr /
 * warmup). */
double optimizer_lr(const struct config *config, int64_t s);
/* One update from reduced gradients. Where their norm is not finite nothing is changed. Collective over the group. */
void optimizer_update(struct model *model, int64_t s);
/* The norm before clipping of the last update; waits. */
double optimizer_norm(const struct model *model);

#endif
