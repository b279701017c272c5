#include "moe/plan.h"

#include <string.h>

#include "base/block.h"

static struct comm_blocks blocks_take(struct arena *host, int64_t peers, int64_t blocks) {
    return (struct comm_blocks){
        ARENA_ARRAY(host, int, peers),
        ARENA_ARRAY(host, int64_t, blocks),
        ARENA_ARRAY(host, int64_t, blocks),
    };
}

/* Rows leave in expert order: one block per expert (or, joined, per peer), those of a peer one after the other. */
static void build_home(struct plan *plan, struct arena *host, bool joined) {
    int peers = plan->group->size;
    int64_t E = plan->E, next = 0, at = 0;
    plan->home = blocks_take(host, peers, joined ? peers : E);
    int64_t *offset = plan->home.offset, *count = plan->home.count;
    for (int p = 0, e = 0; p < peers; ++p) {
        int64_t experts = block_count(E, peers, p);
        plan->home.per_peer[p] = joined ? 1 : (int)experts;
        for (int64_t i = 0; i < experts; ++i, ++e) {
            if (!joined || !i) {
                offset[at] = next;
                count[at++] = 0;
            }
            count[at - 1] += plan->counts[e];
            next += plan->counts[e];
        }
    }
    plan->sent = next;
}

/* Rows arrive in expert-major places: expert by expert, within one by source. all [peers]: everybody's counts, `stride`
 * apart. */
static void build_away(struct plan *plan, const struct pass *pass, const int64_t *all, int64_t stride) {
    int peers = plan->group->size;
    int64_t here = block_count(plan->E, peers, plan->group->rank),
            first = block_first(plan->E, peers, plan->group->rank), next = 0;
    int64_t *begin = ARENA_ARRAY(pass->host, int64_t, here + 1);
    plan->away = blocks_take(pass->host, peers, peers * here);
    int64_t *offset = plan->away.offset, *count = plan->away.count;
    for (int p = 0; p < peers; ++p) plan->away.per_peer[p] = (int)here;
    for (int64_t e = 0; e < here; ++e) {
        begin[e] = next;
        for (int p = 0; p < peers; ++p) {
            offset[p * here + e] = next;
            count[p * here + e] = all[p * stride + first + e];
            next += count[p * here + e];
        }
    }
    begin[here] = plan->rows = next;
    int64_t *begin_here = ARENA_ARRAY(pass->arena, int64_t, here + 1);
    device->upload(begin_here, begin, (size_t)(here + 1) * sizeof *begin);
    plan->groups = (struct groups){here, begin, begin_here};
}

/* From blocks per expert to one per peer, and from expert-major places to those of arrival. */
static void join_away(struct plan *plan, const struct pass *pass) {
    int peers = plan->group->size;
    int64_t here = plan->groups.count, next = 0, *index = ARENA_ARRAY(pass->host, int64_t, plan->rows);
    struct comm_blocks joined = blocks_take(pass->host, peers, peers);
    for (int p = 0; p < peers; ++p) {
        joined.per_peer[p] = 1;
        joined.offset[p] = next;
        for (int64_t e = 0; e < here; ++e)
            for (int64_t i = 0; i < plan->away.count[p * here + e]; ++i)
                index[plan->away.offset[p * here + e] + i] = next++;
        joined.count[p] = next - joined.offset[p];
    }
    int64_t *arrival = ARENA_ARRAY(pass->arena, int64_t, plan->rows);
    device->upload(arrival, index, (size_t)plan->rows * sizeof *index);
    plan->away = joined;
    plan->arrival = arrival;
}

void plan_start(struct plan *plan, const struct pass *pass, struct comm *group, const int32_t *experts, int64_t K,
                int64_t E) {
    *plan = (struct plan){.group = group, .tokens = pass->tokens, .K = K, .slots = pass->tokens * K, .E = E};
    plan->order = ARENA_ARRAY(pass->arena, int64_t, plan->slots);
    plan->place = ARENA_ARRAY(pass->arena, int64_t, plan->slots);
    plan->counts = ARENA_ARRAY(pass->host, int64_t, E);
    int64_t *counts = ARENA_ARRAY(pass->arena, int64_t, E);
    ops->sort_by_expert(plan->order, plan->place, counts, experts, pass->arena, plan->slots, E);
    device->fetch(plan->counts, counts, (size_t)E * sizeof *counts);
    plan->counted = device->mark(QUEUE_COMPUTE);
}

/* The same answer on every rank: from what all of them know. */
static bool join_messages(const struct plan *plan, const struct pass *pass, int64_t D, int64_t small_message) {
    if (!plan->group->plane || plan->group->size == 1) return false;
    double rows = (double)(pass->tokens_micro * plan->K) / (double)(pass->ranks * plan->E);
    return rows * (double)(D * (int64_t)sizeof(real)) < (double)small_message;
}

void plan_finish(struct plan *const *plans, int n, const struct pass *pass, int64_t D, int64_t small_message) {
    struct comm *group = plans[0]->group;
    int64_t width = 0, at = 0;
    for (int i = 0; i < n; ++i) width += plans[i]->E;
    int64_t *own = ARENA_ARRAY(pass->host, int64_t, width),
            *all = ARENA_ARRAY(pass->host, int64_t, group->size * width);
    for (int i = 0; i < n; at += plans[i++]->E) {
        device->finish(plans[i]->counted);
        memcpy(own + at, plans[i]->counts, (size_t)plans[i]->E * sizeof *own);
    }
    comm_allgather(group, all, own, width);
    at = 0;
    for (int i = 0; i < n; at += plans[i++]->E) {
        bool joined = join_messages(plans[i], pass, D, small_message);
        build_home(plans[i], pass->host, joined);
        build_away(plans[i], pass, all + at, width);
        if (joined) join_away(plans[i], pass);
    }
}

const real *plan_gather(const struct plan *plan, const struct pass *pass, const real *in, int64_t D) {
    real *sorted = ARENA_ARRAY(pass->arena, real, plan->slots * D);
    ops->scatter_rows(sorted, in, plan->place, plan->K, plan->slots, D);
    return sorted;
}

static struct device_mark exchange(const struct plan *plan, void *out, const void *in, int64_t row_bytes, bool back) {
    device->await(QUEUE_DISPATCH, device->mark(QUEUE_COMPUTE));
    comm_exchange_rows(plan->group, QUEUE_DISPATCH, out, in, row_bytes, back ? &plan->home : &plan->away,
                       back ? &plan->away : &plan->home);
    return device->mark(QUEUE_DISPATCH);
}

struct flight plan_send(const struct plan *plan, const struct pass *pass, const real *in, int64_t D) {
    if (plan->group->size == 1) return (struct flight){.rows = in}; /* one rank: send order is expert-major order */
    real *rows = ARENA_ARRAY(pass->arena, real, plan->rows * D);
    struct device_mark landed = exchange(plan, rows, in, D * (int64_t)sizeof(real), false);
    return (struct flight){rows, landed, plan->arrival ? plan : NULL, D, true};
}

struct flight plan_return(const struct plan *plan, const struct pass *pass, const real *rows, int64_t D) {
    if (plan->group->size == 1) return (struct flight){.rows = rows};
    real *slots = ARENA_ARRAY(pass->arena, real, plan->sent * D);
    if (plan->arrival) {
        real *by_peer = ARENA_ARRAY(pass->arena, real, plan->rows * D);
        ops->scatter_rows(by_peer, rows, plan->arrival, 1, plan->rows, D);
        rows = by_peer;
    }
    struct device_mark landed = exchange(plan, slots, rows, D * (int64_t)sizeof(real), true);
    return (struct flight){slots, landed, NULL, D, true};
}

struct flight plan_send_tokens(const struct plan *plan, const struct pass *pass) {
    enum { WIDTH = sizeof(int64_t) / sizeof(real) }; /* a number's bits travel as reals */
    int64_t *sorted = ARENA_ARRAY(pass->arena, int64_t, plan->sent);
    ops->row_numbers(sorted, plan->order, plan->K, pass_token_first(pass), plan->sent);
    return plan_send(plan, pass, (const real *)sorted, WIDTH);
}

const void *flight_land(const struct flight *flight, const struct pass *pass) {
    const struct plan *plan = flight->plan;
    if (flight->flying) device->await(QUEUE_COMPUTE, flight->landed);
    if (!plan) return flight->rows;
    real *sorted = ARENA_ARRAY(pass->arena, real, plan->rows * flight->D);
    ops->gather_rows(sorted, flight->rows, plan->arrival, 1, plan->rows, flight->D);
    return sorted;
}
