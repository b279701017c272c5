/* Step files (docs/step-file.md): one training step written down, for any other implementation to be held against. */
#ifndef VQMOE_STEP_FILE_H
#define VQMOE_STEP_FILE_H

#include "store/archive.h"
#include "store/snapshot.h"
#include "train/step.h"

/* Room for the choices of any one step on this rank's tokens, as record or replay want it; routes_free takes a zeroed
 * one. */
void routes_allocate(struct routes *routes, const struct step *step);
void routes_free(struct routes *routes, const struct step *step);
/* Arrays GROUP/LAYER/experts and GROUP/LAYER/codes of update `number`, by global token: this rank's. */
void routes_put(struct snapshot *snapshot, const char *group, const struct routes *routes, const struct step *step,
                int64_t number);
enum status routes_read(struct archive *archive, const char *group, struct routes *routes, const struct step *step,
                        int64_t number);

/* Runs the gradients of update `number` on tokens, targets [local rows, L] and writes everything. Memory moves on,
 * parameters do not, but for what the step's own updates (model_after_step) change. Collective over the world; errors
 * agree. */
enum status step_file_write(const char *path, struct step *step, int64_t number, const int32_t *tokens,
                            const int32_t *targets);
/* The same of a classifier. */
enum status step_file_write_batch(const char *path, struct step *step, int64_t number, const struct batch *batch);

#endif
