/* A training run: data, model, optimizer, evaluation, checkpoints, metrics. */
#ifndef VQMOE_TRAINER_H
#define VQMOE_TRAINER_H

#include "train/checkpoint.h"
#include "train/diagnostics.h"
#include "train/metrics.h"
#include "train/task.h"

/* Sees each step of a run; may set the routes it takes. */
struct observer {
    struct routes *routes;
    enum status (*before)(struct observer *observer, const struct step *step, int64_t number);
    enum status (*after)(struct observer *observer, const struct step *step, int64_t number);
};

struct trainer {
    struct config config; /* with what the data decides: epochs in steps, eval.every */
    struct comm *world;
    struct task task;
    struct model model;
    struct step step;
    struct diagnostics diagnostics;
    struct progress progress;
    const char *resumed; /* the checkpoint it goes on from, the caller's; NULL */
};

/* Opens the data, builds the model, and goes on from checkpoint `resume`, or begins, with the weights of checkpoint
 * `init_from` where they fit (each NULL: none). Collective over the world: all of these, and errors agree. trainer_free
 * takes a zeroed trainer too. */
enum status trainer_init(struct trainer *trainer, const struct config *config, struct comm *world, const char *resume,
                         const char *init_from);
void trainer_free(struct trainer *trainer);

/* Trains until train.steps: evaluates, writes what is in run.dir (run_folder.h, which was entered before), checkpoints
 * while it goes on, and tests the best of them at the end. Asked to stop (control.h) it saves and returns
 * STATUS_REQUEUE. anew: a run that begins at step 0 may take the place of one that was lost before its first
 * checkpoint. observer may be NULL. */
enum status trainer_run(struct trainer *trainer, bool anew, struct observer *observer);

#endif
