/* The folder of a run: runs/NAME/ with config.yaml, metrics.jsonl, route_hashes.tsv, routing/, checkpoints/, logs/,
 * heartbeat/, environment.txt and a lock, so that two jobs never write one run. */
#ifndef VQMOE_RUN_FOLDER_H
#define VQMOE_RUN_FOLDER_H

#include "comm/comm.h"
#include "config/config.h"
#include "train/checkpoint.h"

struct run_folder {
    int lock; /* on rank 0 the open file, -1 elsewhere and where the file system has no locks */
};

/* Makes run.dir and what is below it, locks it, and lets the log go there. Collective, errors agree: STATUS_WRITE;
 * STATUS_CONFIG where another job holds the lock. */
enum status run_folder_enter(struct run_folder *folder, const struct config *config, struct comm *world);
/* Before the first step of a run that stands at `progress`, on all ranks: a run of step 0 wants a folder without one,
 * unless `anew` says that what is there may go (a job that was started again before its first checkpoint); what is of
 * later steps is put aside; last.h5 and best.h5 are set right; config.yaml is written. STATUS_CONFIG, STATUS_WRITE. */
enum status run_folder_begin(const struct config *config, struct comm *world, const struct progress *progress,
                             bool anew);
void run_folder_leave(struct run_folder *folder); /* a zeroed one, and one never entered, are fine */

#endif
