/* s = x W^T + b: Switch, GShard. */
#include "moe/router.h"

static void init(struct router *router, struct params *params, const struct config *config) {
    (void)config;
    int64_t shape[] = {router->E, router->d_model};
    router->weight = params_add(params, router->layer, "router.weight", PLACE_REPLICATED, INITIAL_WEIGHT, 2, shape);
    router->bias = params_add(params, router->layer, "router.bias", PLACE_REPLICATED, INITIAL_ZERO, 1, shape);
}

void router_linear_forward(struct router *router, const struct pass *pass, real *scores, const real *x, int64_t N) {
    (void)pass;
    ops->linear_exact_forward(scores, x, router->weight->data, router->bias->data, N, router->E, router->d_model);
}

void router_linear_backward(struct router *router, const struct pass *pass, real *dx, const real *dscores,
                            const real *x, int64_t N) {
    (void)pass;
    ops->linear_exact_backward(dx, true, router->weight->grad, router->bias->grad, dscores, x, router->weight->data, N,
                               router->E, router->d_model);
}

const struct router_kind router_smoe = {
    .name = "smoe",
    .tau = 1,
    .init = init,
    .forward = router_linear_forward,
    .backward = router_linear_backward,
};
