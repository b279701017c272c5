/* How long this rank waits for its peers, and what it asks them for: what a job that one lost, stopped or late peer has
 * ended says. Ranks of MPI only; one process alone waits for nobody.
 *
 * Before an exchange all ranks of the group meet, by polling. A rank that has waited for longer than the limit calls
 * the roll (roll_call.h) and ends the job with STATUS_PEER and a line that names operation, step, layer and who did not
 * come. What blocks after they have met, because a peer stops just then or a cable is pulled, a thread of its own
 * ends: it counts how long it has seen the main thread in the same call, so that the time for which this process itself
 * was stopped does not count. */
#ifndef VQMOE_WATCH_H
#define VQMOE_WATCH_H

#include "comm/comm.h"

/* An operation of a group: which (the same on all its ranks), and where this rank asked for it. */
struct watch_place {
    const char *operation, *group;
    uint64_t group_id;
    int64_t number; /* among the group's operations */
    int64_t bytes;  /* that this rank gives; -1: none to tell of */
    int64_t step;   /* -1: in none */
    int layer;      /* -1: in none */
    const char *phase;
};

/* Starts the thread, with a limit of 600 s. rank: of the world. */
void watch_start(int rank);
void watch_limit(double seconds);
/* While it waits this rank calls `look` now and then, which ends the job where it finds lost peers. */
void watch_look(void (*look)(void));

/* Noted before it is asked for. `operation` and the group's name are literals. */
void watch_note(struct comm *comm, const char *operation, int64_t bytes);
/* Waits until all ranks of the group are here. From then on until watch_done the limit holds for what the caller asks
 * for, which may block. Nothing for a group of one. */
void watch_meet(struct comm *comm);
void watch_done(void);
/* The same without the wait, where the ranks need not meet. */
void watch_enter(void);

/* Ends the job with STATUS_PEER: what happened, and the operations noted last, with their places. */
void watch_lost(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* This process is about to end with `status`; if that hangs it ends in seconds all the same. */
void watch_ending(enum status status);

/* Adds to a text of at most `size` bytes. */
void watch_add(char *text, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Adds "all-reduce (4 bytes) of world at step 12, layer 3 (backward)". */
void watch_add_place(char *text, size_t size, const struct watch_place *place);

#endif
