/* e = splitmix64(id ^ seed ^ layer 0x9E37...) mod E: hash layers (arXiv 2106.04426). Nothing is learned. */
#include "base/log.h"
#include "moe/router.h"

static void init(struct router *router, struct params *params, const struct config *config) {
    (void)params, (void)config;
    router->over_all = false; /* softmax over the only choice: weight 1 */
}

static void forward(struct router *router, const struct pass *pass, real *scores, const real *x, int64_t N) {
    (void)x;
    CHECK(pass->ids); /* a model without symbols has nothing to hash */
    uint64_t salt = (uint64_t)router->config->run.seed ^ (uint64_t)router->layer * 0x9E3779B97F4A7C15u;
    ops->hash_scores(scores, pass->ids, salt, N, router->E);
}

const struct router_kind router_hash = {.name = "hash", .one = true, .init = init, .forward = forward};
