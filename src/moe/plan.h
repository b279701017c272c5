/* The plan of a MoE layer: who sends which row where. Built once per path and forward from the chosen experts, it
 * serves dispatch and return, forward and backward, for every router and both paths.
 *
 * A slot is one (token, choice) pair, slot = token * K + choice. At home slots are sorted by expert (stable); since a
 * rank's experts are contiguous, so are the rows for one peer. At the owner rows are expert-major, within an expert by
 * (source rank, slot): the same order on every run. With `home` and `away` rows go straight from one place to the
 * other, nothing is permuted on arrival. */
#ifndef VQMOE_PLAN_H
#define VQMOE_PLAN_H

#include "base/arena.h"
#include "base/real.h"
#include "comm/comm.h"

struct plan {
    struct comm *group;       /* expert-parallel group */
    int64_t tokens, K, slots; /* at home */
    int64_t sent;             /* slots that go anywhere: all but the dropped ones, which have no place */
    int64_t *order, *place;   /* [sent] slot at a place; [slots] place of a slot, -1 of a dropped one */
    int64_t *counts;          /* [E] slots of this rank for each expert */
    int64_t rows;             /* rows that came here */
    int64_t *begin;           /* [experts here + 1] first row of each local expert */
    struct comm_blocks home, away;
};

/* Collective over the group: counts travel here, once, also with no tokens. experts [tokens, K] in 0 .. E - 1, or -1:
 * dropped. */
void plan_build(struct plan *plan, struct arena *arena, struct comm *group, const int32_t *experts, int64_t tokens,
                int64_t K, int64_t E);
/* The rest is collective over the group too; results lie in the arena (or are the input itself, where the group is one
 * rank). */

/* One gather, one exchange: [rows, D] from in [tokens, D], each token's row to each of its experts. Send order has
 * `sent` rows. */
const real *plan_dispatch(const struct plan *plan, struct arena *arena, const real *in, int64_t D);
/* The same for rows already in send order: [rows, D] from in [sent, D]. */
const real *plan_send(const struct plan *plan, struct arena *arena, const real *in, int64_t D);
/* The way back: [sent, D] in send order from rows [rows, D]. */
const real *plan_return(const struct plan *plan, struct arena *arena, const real *rows, int64_t D);
/* g of each row here [rows]; first is g of token 0 at home. */
const int64_t *plan_tokens(const struct plan *plan, struct arena *arena, int64_t first);

#endif
