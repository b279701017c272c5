/* The folder of a run: runs/NAME/ with config.yaml, metrics.jsonl, route_hashes.tsv, routing/, checkpoints/, logs/,
 * heartbeat/, environment.txt and a lock, so that two jobs never write one run. */
#ifndef VQMOE_RUN_FOLDER_H
#define VQMOE_RUN_FOLDER_H

#include <stdbool.h>

#include "comm/comm.h"
#include "config/config.h"
#include "train/checkpoint.h"

struct run_folder {
    int lock; /* on rank 0 the open file, -1 elsewhere and where the file system has no locks */
};

/* Makes run.dir and what is below it, locks it, and lets the log go there. Collective, errors agree: STATUS_WRITE;
 * STATUS_CONFIG where another job holds the lock. */
enum status run_folder_enter(struct run_folder *folder, const struct config *config, struct comm *world);
/* On all ranks, before the first step of a run that stands at `progress`, read from the checkpoint `from` (NULL: none).
 * What the folder holds of later steps is put aside, last.h5 and best.h5 are set right, config.yaml is written.
 * STATUS_CONFIG where the folder holds another run: one that `from` is not of, and that `anew` does not give up (a job
 * that was lost before its first checkpoint, started again). STATUS_WRITE. */
enum status run_folder_begin(const struct config *config, struct comm *world, const char *from, bool anew,
                             const struct progress *progress);
/* Whether the checkpoint is one of this run folder. */
bool run_folder_holds(const struct config *config, const char *from);
void run_folder_leave(struct run_folder *folder); /* a zeroed one, and one never entered, are fine */

#endif
