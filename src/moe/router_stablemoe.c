/* s = x . m_e / max(norm(m_e), 1e-4), m orthogonal at the start: StableMoE (arXiv 2204.08396), first stage. */
#include "moe/router.h"

static const double norm_floor = 1e-4;

static void init(struct router *router, struct params *params) {
    int64_t shape[] = {router->E, router->d_model};
    struct initial orthogonal = {INITIAL_ORTHOGONAL, 0.32, 0};
    router->weight = params_add(params, router->layer, "router.embedding", PLACE_REPLICATED, orthogonal, 2, shape);
}

static void forward(struct router *router, const struct pass *pass, real *scores, const real *x, int64_t N) {
    router->unit = ARENA_ARRAY(pass->arena, real, router->E * router->d_model);
    router->norms = ARENA_ARRAY(pass->arena, real, router->E);
    ops->normalize_rows_forward(router->unit, router->norms, router->weight->data, norm_floor, router->E,
                                router->d_model);
    ops->linear_forward(scores, x, router->unit, NULL, N, router->E, router->d_model);
}

static void backward(struct router *router, const struct pass *pass, real *dx, const real *dscores, const real *x,
                     int64_t N) {
    real *dunit = ARENA_ARRAY(pass->arena, real, router->E * router->d_model);
    ops->fill(dunit, 0, router->E * router->d_model);
    ops->linear_backward(dx, true, dunit, NULL, dscores, x, router->unit, N, router->E, router->d_model);
    ops->normalize_rows_backward(router->weight->grad, dunit, router->unit, router->norms, norm_floor, router->E,
                                 router->d_model);
}

const struct router_kind router_stablemoe = {"stablemoe", 0.3, init, forward, backward};
