/* The checkpoints of a run folder by name: FOLDER/checkpoints/step-NNNNNNNNNN.h5, and the links last.h5 and best.h5.
 * docs/checkpoint-format.md. Nothing else in that folder is touched. */
#ifndef VQMOE_CHECKPOINTS_H
#define VQMOE_CHECKPOINTS_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/comm.h"

enum { CHECKPOINT_PATH = 1024 };

/* FOLDER/checkpoints/step-NNNNNNNNNN.h5 */
void checkpoints_path(char path[CHECKPOINT_PATH], const char *folder, int64_t step);

/* ---- On one rank ---- */

/* After step's was written: links are set right, all but the `keep` newest (0: all) and the best are removed. What
 * cannot be done is warned of. best_step: of the best so far, 0: none. */
void checkpoints_written(const char *folder, int64_t step, int64_t best_step, int64_t keep);
/* last.h5 leads to the newest up to `step`, best.h5 to the best so far: a run may have been lost between a checkpoint's
 * name and its links. A file system without links is warned of. */
void checkpoints_link(const char *folder, int64_t step, int64_t best_step);
/* A run goes on after `step`: what stands for later steps is of a future that does not come, or damaged. It gets the
 * ending .superseded (or .superseded.2, ...), said in a warning each; half-written files are removed. STATUS_WRITE. */
enum status checkpoints_put_aside(const char *folder, int64_t step);

/* ---- Collective ---- */

/* Path of the newest checkpoint of which every checksum fits; those that do not are warned of. *found false and
 * STATUS_OK where there are none at all, STATUS_CHECKPOINT where none is whole, STATUS_INTERNAL where one cannot be
 * read: it may be whole. */
enum status checkpoints_newest(char path[CHECKPOINT_PATH], bool *found, const char *folder, struct comm *world);

#endif
