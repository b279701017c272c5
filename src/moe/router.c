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
    for (int64_t e = 0; e < E; ++e) counts[e] = 0;
    for (int64_t i = 0; i < N * router->K; ++i) counts[router->experts[i]]++;
    if (router->balance_scope == BALANCE_GLOBAL) {
        comm_allreduce(router->world, sums, 2 * E, COMM_DOUBLE, COMM_SUM);
        tokens = pass->tokens_micro;
    }
    router->coefficient = ARENA_ARRAY(pass->arena, double, E);
    for (int64_t e = 0; e < E; ++e) {
        router->coefficient[e] = tokens ? (double)E * counts[e] / (double)(tokens * router->K) : 0;
        router->balance_loss += router->coefficient[e] * sums[e] / (double)pass->tokens_micro;
    }
}

/* An expert takes its first slots in the order of the global batch; rows of lower ranks come first. */
static void drop_beyond_capacity(struct router *router, const struct pass *pass, int64_t N) {
    int64_t E = router->E, K = router->K, slots = pass->tokens_micro * K;
    int64_t room = (int64_t)ceil(router->capacity * (double)slots / (double)E);
    struct arena_mark mark = arena_mark(pass->arena);
    int64_t *taken = ARENA_ARRAY(pass->arena, int64_t, E),
            *all = ARENA_ARRAY(pass->arena, int64_t, router->world->size * E);
    memset(taken, 0, (size_t)E * sizeof *taken);
    for (int64_t i = 0; i < N * K; ++i)
        if (router->routed[i] >= 0) taken[router->routed[i]]++;
    comm_allgather(router->world, all, taken, E);
    memset(taken, 0, (size_t)E * sizeof *taken);
    for (int r = 0; r < router->world->rank; ++r)
        for (int64_t e = 0; e < E; ++e) taken[e] += all[r * E + e];
    for (int64_t i = 0; i < N * K; ++i)
        if (router->routed[i] >= 0 && taken[router->routed[i]]++ >= room) router->routed[i] = -1;
    arena_release(pass->arena, mark);
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
    router->balance_loss = router->distill_loss = 0;
    router->kind->forward(router, pass, router->scores, x, N);
    if (router->idle) ops->fill(router->scores, 0, N * E);
    const real *choose = router->choose ? router->choose : router->scores;
    ops->top_k(router->experts, choose, N, E, K);
    routes_apply(routes, ROUTE_EXPERTS, router->layer, router->experts, choose, N, K, E);
    ops->route_weights_forward(router->weights, router->scores, router->experts, router->over_all, N, E, K);
    memcpy(router->routed, router->experts, (size_t)(N * K) * sizeof *router->routed);
    if (router->idle) {
        memset(router->routed, -1, (size_t)(N * K) * sizeof *router->routed);
        ops->fill(router->weights, 0, N * K);
    }
    if (router->capacity > 0) drop_beyond_capacity(router, pass, N);
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
