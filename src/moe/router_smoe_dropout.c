/* SMoE-Dropout (arXiv 2303.01610): smoe with W and b frozen at their initial values, while k grows from k_min to k_max
 * over the training. */
#include <math.h>

#include "moe/router.h"

static void init(struct router *router, struct params *params, const struct config *config) {
    int64_t shape[] = {router->E, router->d_model};
    router->K_max = config->router.k_max ? config->router.k_max : router->E;
    router->weight = params_add(params, router->layer, "router.weight", PLACE_STATE, INITIAL_WEIGHT, 2, shape);
    router->bias = params_add(params, router->layer, "router.bias", PLACE_STATE, INITIAL_ZERO, 1, shape);
}

/* The least of `auto` is half the experts, but not above the most. nearbyint rounds halves to even, as the published
 * runs did. */
static int64_t choices(const struct router *router, int64_t step) {
    const struct config *config = router->config;
    int64_t half = (router->E + 1) / 2, least = half < router->K_max ? half : router->K_max;
    if (config->router.k_min) least = config->router.k_min;
    double done = fmin((double)step / (double)config_total_steps(config), 1);
    return least + (int64_t)nearbyint((double)(router->K_max - least) * done);
}

const struct router_kind router_smoe_dropout = {
    .name = "smoe_dropout",
    .init = init,
    .choices = choices,
    .forward = router_linear_forward,
    .backward = router_linear_backward,
};
