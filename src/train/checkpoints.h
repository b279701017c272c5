/* The checkpoints of a run folder by name: FOLDER/checkpoints/step-NNNNNNNNNN.h5, and the links last.h5 and best.h5.
 * docs/checkpoint-format.md. Nothing else in that folder is touched. */
#ifndef VQMOE_CHECKPOINTS_H
#define VQMOE_CHECKPOINTS_H

#include <stdbool.h>

#include "comm/comm.h"

enum { CHECKPOINT_PATH = 1024 };

/* FOLDER/checkpoints/step-NNNNNNNNNN.h5 */
void checkpoints_path(char path[CHECKPOINT_PATH], const char *folder, int64_t step);

/* ---- On one rank ---- */

/* Steps of those that are there, descending, in *steps (the caller frees it); returns how many, 0 where there is no
 * such folder. */
int64_t checkpoints_list(const char *folder, int64_t **steps);
/* After step's was written: last.h5, and where it is the best so far best.h5, lead to it; all but the `keep` newest (0:
 * all) and the best are removed. A file system without links is warned of. */
void checkpoints_written(const char *folder, int64_t step, bool best, int64_t keep);
/* A run goes on after `step`: what stands for later steps is of a future that does not come, or damaged. It gets the
 * ending .superseded, said in a warning each. Half-written files are removed, and the links set right: a run may have
 * been lost between a checkpoint's name and its links. best_step: of the best so far. */
void checkpoints_go_on(const char *folder, int64_t step, int64_t best_step);

/* ---- Collective ---- */

/* Path of the newest checkpoint of which every checksum fits; those that do not are warned of. *found false and
 * STATUS_OK where there are none at all, STATUS_CHECKPOINT where none is whole. */
enum status checkpoints_newest(char path[CHECKPOINT_PATH], bool *found, const char *folder, struct comm *world);

#endif
