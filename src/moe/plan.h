/* The plan of a MoE layer: who sends which row where. Built once per path and forward from the chosen experts, it
 * serves dispatch and return, forward and backward, for every router and both paths.
 *
 * A slot is one (token, choice) pair, slot = token * K + choice. At home slots are sorted by expert (stable); since a
 * rank's experts are contiguous, so are the rows for one peer. At the owner rows are expert-major, within an expert by
 * (source rank, slot): the same order on every run. Rows go straight from one place to the other, nothing is permuted
 * on arrival; only where messages would be small (parallel.small_message) those for one peer go as one, and a gather
 * makes them expert-major.
 *
 * What is done where: sorting, gathering and experts on the device's compute queue, rows fly on its dispatch queue, and
 * only the counts pass through the host. */
#ifndef VQMOE_PLAN_H
#define VQMOE_PLAN_H

#include "comm/comm.h"
#include "nn/pass.h"

struct plan {
    struct comm *group;          /* expert-parallel group */
    int64_t tokens, K, slots, E; /* tokens and slots at home */
    int64_t *order, *place;      /* device [sent] slot at a place; [slots] place of a slot, -1 of a dropped one */
    int64_t *counts;             /* host [E] slots of this rank for each expert; as what follows, after plan_finish */
    struct device_mark counted;
    int64_t sent;         /* slots that go anywhere: all but the dropped ones, which have no place */
    int64_t rows;         /* rows that came here */
    struct groups groups; /* rows of each local expert */
    struct comm_blocks home, away;
    const int64_t *arrival; /* device [rows] where messages are joined: the place of an expert-major row among those
                               that came, peer by peer; else NULL */
};

/* Sorts, and sends the counts on their way to the host. experts [tokens, K] in 0 .. E - 1, or -1: dropped. */
void plan_start(struct plan *plan, const struct pass *pass, struct comm *group, const int32_t *experts, int64_t K,
                int64_t E);
/* Waits for the counts of `n` plans of one group and exchanges them, all at once, also with no tokens: as late as
 * possible, so that the device has work meanwhile. D: width of a row. Collective over the group. */
void plan_finish(struct plan *const *plans, int n, const struct pass *pass, int64_t D, int64_t small_message);

/* Each token's row to each of its experts' places, in send order: [slots, D] of which `sent` are filled, from in
 * [tokens, D]. Needs no plan_finish. */
const real *plan_gather(const struct plan *plan, const struct pass *pass, const real *in, int64_t D);

/* Rows on their way; results lie in the arena (or are the input itself, where the group is one rank). */
struct flight {
    const real *rows;
    struct device_mark landed;
    const struct plan *plan; /* whose joined messages are to be sorted on arrival; else NULL */
    int64_t D;
    bool flying;
};
/* One exchange: [rows, D] from in [sent, D] in send order. Collective over the group, as plan_return. */
struct flight plan_send(const struct plan *plan, const struct pass *pass, const real *in, int64_t D);
/* The way back: [sent, D] in send order from rows [rows, D]. */
struct flight plan_return(const struct plan *plan, const struct pass *pass, const real *rows, int64_t D);
/* As plan_send, of each row's g: flight_land gives int64_t [rows]. */
struct flight plan_send_tokens(const struct plan *plan, const struct pass *pass);
/* What is computed from now on has the rows. */
const void *flight_land(const struct flight *flight, const struct pass *pass);

#endif
