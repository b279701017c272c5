/* Rows of all ranks, a few of each at a time: where each rank holds a part of the vocabulary (`owners`, the ranks that
 * share it; NULL: every rank holds all of it, and is on its own), all of them look at every rank's rows. Everything is
 * collective over the owners and queued on QUEUE_COMPUTE; what the host needs lives in the pass's host arena. */
#ifndef VQMOE_TURNS_H
#define VQMOE_TURNS_H

#include "comm/comm.h"
#include "nn/pass.h"

static inline int owners_size(const struct comm *owners) { return owners ? owners->size : 1; }
static inline int owners_rank(const struct comm *owners) { return owners ? owners->rank : 0; }

/* A number for each row of every rank. */
struct everyone {
    struct comm *owners;
    int64_t *count;        /* [ranks] rows of each */
    int64_t most;          /* of these */
    const int64_t *values; /* [ranks, most]; NULL: counts alone */
};
/* values [n] host; NULL: counts alone. */
struct everyone everyone_of(struct comm *owners, const struct pass *pass, const int32_t *values, int64_t n);

/* Rows at .. at + own - 1 of this rank, and as many of each other, as far as they have them. */
struct turn {
    const struct everyone *everyone;
    int64_t at, own;
    int64_t n;      /* rows of all ranks in this turn: rank r's are first[r] .. first[r + 1] - 1 of them */
    int64_t *first; /* [ranks + 1] */
};
/* How many turns of at most `room` rows (at least one of each rank) it takes; the same on every rank. */
int64_t turns_count(const struct everyone *everyone, int64_t room);
struct turn turn_of(const struct everyone *everyone, const struct pass *pass, int64_t count, int64_t i);

/* Returns [n, d] in the arena: every rank's rows of [tokens, d], in the order of the ranks; on its own the rows
 * themselves. */
const real *turn_gather(const struct turn *turn, const struct pass *pass, const real *rows, int64_t d);
/* rows [own, d] = this rank's rows of parts [n, d], added up over the ranks in their order. */
void turn_sum(const struct turn *turn, const struct pass *pass, real *rows, const real *parts, int64_t d);
/* out [ranks, n]: everybody's values [n]. */
void turn_share(const struct turn *turn, const struct pass *pass, real *out, const real *values, int64_t n);
/* out: after each other, of each rank r the own rows of its columns [n, width_r]; here [n, width of this rank]. */
void turn_columns(const struct turn *turn, const struct pass *pass, real *out, const real *here, const int64_t *width);

#endif
