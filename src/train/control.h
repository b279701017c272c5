/* What asks a run to stop or to save, between two steps: signals, and the clock. Ranks agree in one reduction. */
#ifndef VQMOE_CONTROL_H
#define VQMOE_CONTROL_H

#include "comm/comm.h"
#include "config/config.h"

/* From now on USR1, USR2 and TERM are noted: the run finishes its step, saves and ends with STATUS_REQUEUE. A second
 * signal, a second or more after the first (launchers may send one twice), ends the process at once. */
void control_catch_signals(void);

/* Whether this rank was asked so far. */
bool control_was_asked(void);
/* Collective, for moments at which there is nothing to save: whether any rank was asked. */
bool control_is_asked(struct comm *world);

struct control {
    const struct config *config;
    double started, saved; /* clock_seconds */
};
void control_start(struct control *control, const struct config *config);
/* checkpoint.every_minutes count from here. */
void control_saved(struct control *control);

/* The same on all ranks. */
struct verdict {
    int stop;     /* 0: go on; a signal's number; or CONTROL_MINUTES: train.max_minutes are over */
    bool save;    /* checkpoint.every_minutes are over */
    bool writing; /* some rank still writes the checkpoint in flight */
};
enum { CONTROL_MINUTES = 1000 };

/* Collective. writing: this rank does. */
struct verdict control_agree(const struct control *control, struct comm *world, bool writing);
/* "SIGUSR1", "train.max_minutes" */
const char *control_reason(int stop);

#endif
