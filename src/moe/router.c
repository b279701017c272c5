#include "moe/router.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "moe/kind.h"

#define ROUTER_LISTED(name) &router_##name,
const struct router_kind *const router_kinds[] = {ROUTER_KINDS(ROUTER_LISTED)};
const int router_n_kinds = sizeof router_kinds / sizeof *router_kinds;

const struct router_kind *router_kind_find(const char *name) {
    if (!strcmp(name, "soft")) {
        status_fail(STATUS_CONFIG,
                    "router.kind: expected a router that knows no later token, found soft, which mixes all tokens of "
                    "an image: it is for vision models only");
        return NULL;
    }
    return kind_find((const void *const *)router_kinds, router_n_kinds, "router.kind", name);
}

/* What no range of a key can say. */
static enum status check(const struct router_kind *kind, const struct config *config) {
    if (kind->one && config->router.top_k != 1)
        return status_fail(STATUS_CONFIG, "router.top_k: expected 1 with router.kind: %s, found %lld", kind->name,
                           (long long)config->router.top_k);
    if (kind->ffn == FFN_ONLY && config->moe.mode != MOE_CONTINUOUS)
        return status_fail(STATUS_CONFIG,
                           "moe.mode: expected continuous with router.kind: %s, which has no experts, found joint",
                           kind->name);
    if (config->router.two_stage && kind != &router_stablemoe)
        return status_fail(STATUS_CONFIG, "router.two_stage: expected false with router.kind: %s, found true",
                           kind->name);
    return STATUS_OK;
}

enum status router_init(struct router *router, struct params *params, const struct config *config, int layer, int64_t V,
                        struct comm *world) {
    *router = (struct router){
        .kind = router_kind_find(config->router.kind),
        .layer = layer,
        .d_model = config->model.d_model,
        .E = config->moe.experts,
        .V = V,
        .K_max = config->router.top_k,
        .over_all = config->router.normalize == NORMALIZE_ALL,
        .balance = config->router.balance,
        .capacity = config->router.capacity,
        .balance_scope = config->router.balance_scope,
        .world = world,
        .config = config,
    };
    enum status status = router->kind ? check(router->kind, config) : STATUS_CONFIG;
    if (!status) router->kind->init(router, params, config);
    return status;
}

void router_free(struct router *router) {
    if (router->own && router->kind->free) router->kind->free(router);
    free(router->own);
    router->own = NULL;
}

int64_t router_choices(const struct router *router, int64_t step) {
    return router->kind->choices ? router->kind->choices(router, step) : router->K_max;
}

/* L_balance = E sum_e f_e P_e, f_e the fraction of routed slots, P_e the mean of softmax(s / tau)_e: over the
 * micro-batch of all ranks, or (scope rank) over this rank's part, weighted by its share of the tokens. */
static void balance_forward(struct router *router, const struct pass *pass, int64_t N) {
    int64_t E = router->E, tokens = N;
    double *sums = ARENA_ARRAY(pass->arena, double, 2 * E), *counts = sums + E;
    ops->balance_forward(sums, router->scores, router->kind->tau, N, E);
    ops->histogram(counts, router->experts, N * router->K, E);
    if (router->balance_scope == BALANCE_GLOBAL) {
        comm_sum_here(router->world, QUEUE_COMPUTE, sums, 2 * E, COMM_DOUBLE);
        tokens = pass->tokens_micro;
    }
    router->coefficient = ARENA_ARRAY(pass->arena, double, E);
    ops->balance_loss(pass_sum(pass, router->layer, SUM_BALANCE), router->coefficient, sums, counts,
                      (double)(tokens * router->K), (double)pass->tokens_micro, E);
}

/* An expert takes its first slots in the order of the global batch; rows of lower ranks come first. The counts pass
 * through the host. */
static void drop_beyond_capacity(struct router *router, const struct pass *pass, int64_t N) {
    int64_t E = router->E, n = N * router->K, slots = pass->tokens_micro * router->K;
    int64_t room = (int64_t)ceil(router->capacity * (double)slots / (double)E);
    struct arena_mark mark = arena_mark(pass->arena);
    int64_t *order = ARENA_ARRAY(pass->arena, int64_t, n), *place = ARENA_ARRAY(pass->arena, int64_t, n),
            *counts = ARENA_ARRAY(pass->arena, int64_t, E), *shift_here = ARENA_ARRAY(pass->arena, int64_t, E);
    int64_t *own = ARENA_ARRAY(pass->host, int64_t, E), *shift = ARENA_ARRAY(pass->host, int64_t, E),
            *all = ARENA_ARRAY(pass->host, int64_t, router->world->size * E), begin = 0;
    ops->sort_by_expert(order, place, counts, router->routed, pass->arena, n, E);
    device->download(own, counts, (size_t)E * sizeof *own);
    comm_allgather(router->world, all, own, E);
    for (int64_t e = 0; e < E; begin += own[e++]) {
        shift[e] = -begin; /* a place becomes a number within its expert, counted from the lowest rank on */
        for (int r = 0; r < router->world->rank; ++r) shift[e] += all[r * E + e];
    }
    device->upload(shift_here, shift, (size_t)E * sizeof *shift);
    ops->drop_beyond(router->routed, place, shift_here, room, n);
    arena_release(pass->arena, mark);
}

/* The choices, as the host will see them; room for those who are routed. */
static void keep_choices(struct router *router, const struct pass *pass, int64_t n) {
    int32_t *seen = ARENA_ARRAY(pass->host, int32_t, n);
    size_t bytes = (size_t)n * sizeof *seen;
    device->fetch(seen, router->experts, bytes);
    router->seen = seen;
    if (router->idle)
        device->set(router->routed, 0xFF, bytes); /* -1 */
    else
        device->copy(router->routed, router->experts, bytes);
}

void router_forward(struct router *router, const struct pass *pass, struct routes *routes, const real *x, int64_t N) {
    int64_t E = router->E, K = router->K = router_choices(router, pass->step);
    router->scores = ARENA_ARRAY(pass->arena, real, N * E);
    router->weights = ARENA_ARRAY(pass->arena, real, N * K);
    router->experts = ARENA_ARRAY(pass->arena, int32_t, N * K);
    router->routed = ARENA_ARRAY(pass->arena, int32_t, N * K);
    router->choose = NULL;
    router->idle = false;
    router->balances = pass->train && router->kind->tau > 0;
    router->kind->forward(router, pass, router->scores, x, N);
    if (router->idle) ops->fill(router->scores, 0, N * E);
    const real *choose = router->choose ? router->choose : router->scores;
    ops->top_k(router->experts, choose, N, E, K);
    routes_apply(routes, ROUTE_EXPERTS, router->layer, router->experts, choose, N, K, E);
    ops->route_weights_forward(router->weights, router->scores, router->experts, router->over_all, N, E, K);
    keep_choices(router, pass, N * K);
    if (router->idle) ops->fill(router->weights, 0, N * K);
    if (router->capacity > 0) drop_beyond_capacity(router, pass, N);
}

void router_losses(struct router *router, const struct pass *pass, int64_t N) {
    if (router->balances) balance_forward(router, pass, N);
    if (pass->train && router->kind->chosen) router->kind->chosen(router, pass, N);
}

void router_backward(struct router *router, const struct pass *pass, real *dx, const real *dweights, const real *x,
                     int64_t N) {
    if (router->idle || !router->kind->backward) return;
    struct arena_mark mark = arena_mark(pass->arena);
    real *dscores = ARENA_ARRAY(pass->arena, real, N * router->E);
    ops->route_weights_backward(dscores, dweights, router->weights, router->scores, router->experts, router->over_all,
                                N, router->E, router->K);
    /* The micro-batch's loss counts by its share of tokens: P_e's 1 / tokens_micro times tokens_micro / tokens_global.
     */
    if (router->balances && router->balance > 0)
        ops->balance_backward(dscores, router->scores, router->coefficient,
                              router->balance / (double)pass->tokens_global, router->kind->tau, N, router->E);
    router->kind->backward(router, pass, dx, dscores, x, N);
    arena_release(pass->arena, mark);
}
