#include "moe/router.h"

#include "moe/kind.h"

static const void *const kinds[] = {&router_smoe, &router_stablemoe};
enum { KINDS = sizeof kinds / sizeof *kinds };

enum status router_init(struct router *router, struct params *params, const struct config *config, int layer,
                        struct comm *world) {
    *router = (struct router){
        .layer = layer,
        .d_model = config->model.d_model,
        .E = config->moe.experts,
        .K = config->router.top_k,
        .over_all = config->router.normalize == NORMALIZE_ALL,
        .balance = config->router.balance,
        .balance_scope = config->router.balance_scope,
        .world = world,
    };
    router->kind = kind_find(kinds, KINDS, "router.kind", config->router.kind);
    if (!router->kind) return STATUS_CONFIG;
    router->kind->init(router, params);
    return STATUS_OK;
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
    router->balance_loss = 0;
    for (int64_t e = 0; e < E; ++e) {
        router->coefficient[e] = tokens ? (double)E * counts[e] / (double)(tokens * router->K) : 0;
        router->balance_loss += router->coefficient[e] * sums[e] / (double)pass->tokens_micro;
    }
}

void router_forward(struct router *router, const struct pass *pass, struct routes *routes, const real *x, int64_t N) {
    int64_t E = router->E, K = router->K;
    router->scores = ARENA_ARRAY(pass->arena, real, N * E);
    router->weights = ARENA_ARRAY(pass->arena, real, N * K);
    router->experts = ARENA_ARRAY(pass->arena, int32_t, N * K);
    router->kind->forward(router, pass, router->scores, x, N);
    ops->top_k(router->experts, router->scores, N, E, K);
    routes_apply(routes, ROUTE_EXPERTS, router->layer, router->experts, router->scores, N, K, E);
    ops->route_weights_forward(router->weights, router->scores, router->experts, router->over_all, N, E, K);
    if (pass->train) balance_forward(router, pass, N);
}

void router_backward(struct router *router, const struct pass *pass, real *dx, const real *dweights, const real *x,
                     int64_t N) {
    struct arena_mark mark = arena_mark(pass->arena);
    real *dscores = ARENA_ARRAY(pass->arena, real, N * router->E);
    ops->route_weights_backward(dscores, dweights, router->weights, router->scores, router->experts, router->over_all,
                                N, router->E, router->K);
    /* The micro-batch's loss counts by its share of tokens: P_e's 1 / tokens_micro times tokens_micro / tokens_global.
     */
    if (router->balance > 0)
        ops->balance_backward(dscores, router->scores, router->coefficient,
                              router->balance / (double)pass->tokens_global, router->kind->tau, N, router->E);
    router->kind->backward(router, pass, dx, dscores, x, N);
    arena_release(pass->arena, mark);
}
