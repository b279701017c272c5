/* How many threads a rank runs. */
#ifndef VQMOE_THREADS_H
#define VQMOE_THREADS_H

#include "comm/comm.h"

/* parallel.threads, or for 0 (auto): the cores that the ranks of this node may run on, over the number of these ranks,
 * at least 1 and at most the cores this rank is bound to. Two hardware threads of a core count once. Collective over
 * the world. */
int threads_choose(struct comm *world, int64_t configured);

/* Cores that this rank may run on, those of all ranks of its node, and how many ranks these are. Two hardware threads
 * of a core count once. Collective over the world. */
struct cores {
    int own, node, ranks;
};
struct cores threads_cores(struct comm *world);

#endif
