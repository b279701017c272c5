/* Elapsed time. */
#ifndef VQMOE_CLOCK_H
#define VQMOE_CLOCK_H

#include <time.h>

/* Seconds since some moment; only differences mean something. */
static inline double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
