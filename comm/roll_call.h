/* Who is here? Ranks that wait answer each other by small messages over a communicator of their own, with what they
 * wait in; a rank that computes, is stopped or is lost does not answer. */
#ifndef VQMOE_ROLL_CALL_H
#define VQMOE_ROLL_CALL_H

#include "comm/watch.h"

/* Collective over all ranks of MPI. The end forgets messages that are still under way. */
void roll_call_start(void);
void roll_call_end(void);

/* This rank waits in `here`: answers those who have asked. Cheap; to be called every now and then while it waits. */
void roll_call_answer(const struct watch_place *here);
/* Asks these ranks of the world; `again`: what they said before still stands. members NULL: all. */
void roll_call_ask(const int *members, int n, bool again);
/* What they said: " for rank 3 (host n2)", the ranks that are missing, to `missing`; and of all that were asked,
 * "ranks 0-2 are here; rank 3 does not answer ...", to `rest`. */
void roll_call_result(const struct watch_place *here, char *missing, size_t missing_size, char *rest, size_t rest_size);

#endif
