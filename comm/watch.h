/* How long this rank waits for its peers, and what it asked them for last: what a job that one lost or hanging peer has
 * ended says. Off until a plane starts it. */
#ifndef VQMOE_WATCH_H
#define VQMOE_WATCH_H

#include "comm/comm.h"

/* From now on a wait of more than limit_s ends the job; while it lasts `look` (NULL: nothing) looks for lost peers. */
void watch_start(double limit_s, void (*look)(void));
/* Noted before it is asked for; bytes that this rank gives, -1: none to tell of. `operation` is a literal. */
void watch_note(const struct comm *comm, const char *operation, int64_t bytes);
/* Waits until all ranks of the group are here, so that the exchange of host memory that follows cannot hang. */
void watch_meet(struct comm *comm);
/* Ends the job with STATUS_PEER: what happened, and the operations noted last, with their places. */
void watch_lost(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
