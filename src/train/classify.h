/* Classes of texts, by a classifier in evaluation. */
#ifndef VQMOE_CLASSIFY_H
#define VQMOE_CLASSIFY_H

#include "model/model.h"
#include "train/batch.h"

/* logits [rows, C] of the whole batch, on every rank: the rows are shared out, some ranks may have none. No dropout.
 * step: updates done. Collective over the world. */
void classify(real *logits, struct model *model, const struct batch *batch, int64_t step, struct pass_memory *memory);

/* Of one row: the class with the largest logit, ties to the lowest; -log p(label), in nats. */
int64_t classify_choice(const real *logits, int64_t classes);
double classify_loss(const real *logits, int64_t classes, int32_t label);

#endif
