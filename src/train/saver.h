/* Checkpoints of a run while it goes on: a snapshot into host memory stops the step for as long as a copy takes, a
 * thread writes it. One is in flight; the next waits for it, so that memory stays at one snapshot. */
#ifndef VQMOE_SAVER_H
#define VQMOE_SAVER_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/snapshot.h"
#include "train/checkpoint.h"

struct saver {
    const struct config *config;
    struct comm *world;
    struct snapshot *snapshot;
    pthread_t thread;
    bool in_flight;
    double began;         /* clock_seconds, of the one in flight */
    atomic_bool filled;   /* this rank's part is on disk */
    struct progress last; /* what it holds, or the last one held */
    bool any;             /* there was one */
    /* So far: checkpoints on disk, bytes this rank wrote, seconds that training stood still for them. */
    int64_t count, bytes;
    double stall;
};

/* Takes the memory for snapshots, as that of a first one, now rather than hours later. Collective over the world. */
void saver_init(struct saver *saver, struct step *step, struct diagnostics *diagnostics, const struct legend *legend,
                const struct progress *progress);
/* The state of `progress` stands in run.dir already. */
void saver_has(struct saver *saver, const struct progress *progress);
void saver_free(struct saver *saver); /* not with one in flight; a zeroed one is fine */

/* Collective, as what follows. Takes the snapshot and begins to write it to the run folder, in a thread where
 * checkpoint.async says so; else it is on disk on return. A state that was saved already is not saved again.
 * STATUS_WRITE, of the one before too. */
enum status saver_save(struct saver *saver, struct step *step, struct diagnostics *diagnostics,
                       const struct legend *legend, const struct progress *progress);
/* This rank alone: whether its part of the one in flight is still being written. */
bool saver_is_writing(const struct saver *saver);
/* Waits for the one in flight, if any, and gives it its name. STATUS_WRITE; a disk that takes longer than
 * parallel.timeout_s ends the job with that code. */
enum status saver_finish(struct saver *saver);

#endif
