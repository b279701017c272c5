#include "moe/plan.h"

#include "base/block.h"
#include "kernels/ops.h"

static struct comm_blocks blocks_take(struct arena *arena, int64_t peers, int64_t blocks) {
    return (struct comm_blocks){
        ARENA_ARRAY(arena, int, peers),
        ARENA_ARRAY(arena, int64_t, blocks),
        ARENA_ARRAY(arena, int64_t, blocks),
    };
}

/* Rows leave in expert order: one block per expert, those of a peer one after the other. */
static void build_home(struct plan *plan, struct arena *arena, int64_t E) {
    int peers = plan->group->size;
    plan->home = blocks_take(arena, peers, E);
    int64_t *offset = plan->home.offset, *count = plan->home.count, next = 0;
    for (int p = 0; p < peers; ++p) plan->home.per_peer[p] = (int)block_count(E, peers, p);
    for (int64_t e = 0; e < E; ++e) {
        offset[e] = next;
        count[e] = plan->counts[e];
        next += plan->counts[e];
    }
}

/* Rows arrive in expert-major places: expert by expert, within one by source. all [peers, E]: everybody's counts. */
static void build_away(struct plan *plan, struct arena *arena, const int64_t *all, int64_t E) {
    int peers = plan->group->size;
    int64_t here = block_count(E, peers, plan->group->rank), first = block_first(E, peers, plan->group->rank), next = 0;
    plan->away = blocks_take(arena, peers, peers * here);
    plan->begin = ARENA_ARRAY(arena, int64_t, here + 1);
    int64_t *offset = plan->away.offset, *count = plan->away.count;
    for (int p = 0; p < peers; ++p) plan->away.per_peer[p] = (int)here;
    for (int64_t e = 0; e < here; ++e) {
        plan->begin[e] = next;
        for (int p = 0; p < peers; ++p) {
            offset[p * here + e] = next;
            count[p * here + e] = all[p * E + first + e];
            next += count[p * here + e];
        }
    }
    plan->begin[here] = plan->rows = next;
}

void plan_build(struct plan *plan, struct arena *arena, struct comm *group, const int32_t *experts, int64_t tokens,
                int64_t K, int64_t E) {
    *plan = (struct plan){.group = group, .tokens = tokens, .K = K, .slots = tokens * K};
    plan->order = ARENA_ARRAY(arena, int64_t, plan->slots);
    plan->place = ARENA_ARRAY(arena, int64_t, plan->slots);
    plan->counts = ARENA_ARRAY(arena, int64_t, E);
    ops->sort_by_expert(plan->order, plan->place, plan->counts, experts, plan->slots, E);
    for (int64_t e = 0; e < E; ++e) plan->sent += plan->counts[e];
    int64_t *all = ARENA_ARRAY(arena, int64_t, group->size * E);
    comm_allgather(group, all, plan->counts, E);
    build_home(plan, arena, E);
    build_away(plan, arena, all, E);
}

const real *plan_send(const struct plan *plan, struct arena *arena, const real *in, int64_t D) {
    if (plan->group->size == 1) return in; /* one rank: send order is expert-major order */
    real *rows = ARENA_ARRAY(arena, real, plan->rows * D);
    comm_exchange_rows(plan->group, rows, in, D * (int64_t)sizeof(real), &plan->away, &plan->home);
    return rows;
}

const real *plan_return(const struct plan *plan, struct arena *arena, const real *rows, int64_t D) {
    if (plan->group->size == 1) return rows;
    real *slots = ARENA_ARRAY(arena, real, plan->sent * D);
    comm_exchange_rows(plan->group, slots, rows, D * (int64_t)sizeof(real), &plan->home, &plan->away);
    return slots;
}

const real *plan_dispatch(const struct plan *plan, struct arena *arena, const real *in, int64_t D) {
    real *sorted = ARENA_ARRAY(arena, real, plan->sent * D);
    ops->gather_rows(sorted, in, plan->order, plan->K, plan->sent, D);
    return plan_send(plan, arena, sorted, D);
}

const int64_t *plan_tokens(const struct plan *plan, struct arena *arena, int64_t first) {
    int64_t *sorted = ARENA_ARRAY(arena, int64_t, plan->sent);
    for (int64_t i = 0; i < plan->sent; ++i) sorted[i] = first + plan->order[i] / plan->K;
    if (plan->group->size == 1) return sorted;
    int64_t *rows = ARENA_ARRAY(arena, int64_t, plan->rows);
    comm_exchange_rows(plan->group, rows, sorted, sizeof *rows, &plan->away, &plan->home);
    return rows;
}
