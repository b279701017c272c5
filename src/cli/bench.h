/* Parts of `vqmoe bench`. */
#ifndef VQMOE_BENCH_H
#define VQMOE_BENCH_H

#include "train/step.h"

/* Writes and reads checkpoints of the model in `folder`, in turn with plain calls that move the same bytes, and prints
 * the ratios. Collective over the world, errors agree. */
enum status bench_checkpoint(struct step *step, const char *folder);

/* Fine-tuning and inference of a classifier: operations a token, tokens a second. Collective over the world. */
void bench_texts(struct step *step, int64_t steps);

#endif
