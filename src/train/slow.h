/* Ranks that take over twice as long as the others for the same work. */
#ifndef VQMOE_SLOW_H
#define VQMOE_SLOW_H

#include "base/phase.h"
#include "comm/comm.h"

struct slow_rank {
    int64_t rows, rows_evaluated;
    char host[64];
};

struct slow {
    struct comm *world;
    double busy[PHASES];     /* when this interval began */
    int64_t interval;        /* number of this one, from 1 */
    struct slow_rank *ranks; /* [size] */
    int64_t *spent;          /* [size, PHASES] nanoseconds of work in this interval */
    int64_t *warned;         /* [size, PHASES] the interval of the last warning */
};

/* This rank's rows of a training step, and of a segment of the evaluation: time is compared by row. Collective. */
void slow_init(struct slow *slow, struct comm *world, int64_t rows, int64_t rows_evaluated);
void slow_free(struct slow *slow); /* a zeroed one is fine */
/* The end of an interval of so many steps: rank 0 warns of each rank and phase that took over twice the median, and 0.1
 * s more than that; of the same one not again for 10 intervals. Collective. */
void slow_check(struct slow *slow, int64_t steps);

#endif
