/* No experts: one FFN that every token takes, router.dense_width times as wide as an expert. The plain Transformer. */
#include "moe/router.h"

static void init(struct router *router, struct params *params, const struct config *config) {
    (void)params, (void)config;
    router->E = 0;
}

const struct router_kind router_dense = {.name = "dense", .one = true, .ffn = FFN_ONLY, .init = init};
