/* s = r . m_e / max(norm(m_e), 1e-4) with r = x R^T in few dimensions: the authors' variant of XMoE (arXiv 2204.09179).
 * Before each use in training every m_e itself is set to norm 1.5, which no gradient sees. */
#include <stdlib.h>

#include "base/log.h"
#include "moe/router.h"

enum { REDUCED = 8 };

struct xmoe {
    struct router_cosine cosine;
    struct param *reduction; /* R [REDUCED, d] */
    real *reduced;           /* [N, REDUCED] */
};

static void init(struct router *router, struct params *params, const struct config *config) {
    (void)config;
    int64_t reduction[] = {REDUCED, router->d_model}, shape[] = {router->E, REDUCED};
    struct initial orthogonal = {INITIAL_ORTHOGONAL, 0.32, 0};
    struct xmoe *own = router->own = calloc(1, sizeof *own);
    if (!own) FATAL("out of memory");
    own->reduction =
        params_add(params, router->layer, "router.reduction", PLACE_REPLICATED, INITIAL_WEIGHT, 2, reduction);
    router->weight = params_add(params, router->layer, "router.embedding", PLACE_REPLICATED, orthogonal, 2, shape);
}

static void forward(struct router *router, const struct pass *pass, real *scores, const real *x, int64_t N) {
    struct xmoe *own = router->own;
    real *m = router->weight->data;
    if (pass->train) {
        real *norms = ARENA_ARRAY(pass->arena, real, router->E);
        ops->normalize_rows_forward(m, norms, m, 1e-12, router->E, REDUCED);
        ops->add_scaled(m, m, 0.5, router->E * REDUCED); /* m + m / 2 */
    }
    own->reduced = ARENA_ARRAY(pass->arena, real, N * REDUCED);
    ops->linear_exact_forward(own->reduced, x, own->reduction->data, NULL, N, REDUCED, router->d_model);
    router_cosine_forward(router, pass, &own->cosine, scores, own->reduced, N, REDUCED);
}

static void backward(struct router *router, const struct pass *pass, real *dx, const real *dscores, const real *x,
                     int64_t N) {
    struct xmoe *own = router->own;
    real *dreduced = ARENA_ARRAY(pass->arena, real, N * REDUCED);
    router_cosine_backward(router, pass, &own->cosine, false, dreduced, dscores, own->reduced, N, REDUCED);
    ops->linear_exact_backward(dx, true, own->reduction->grad, NULL, dreduced, x, own->reduction->data, N, REDUCED,
                               router->d_model);
}

const struct router_kind router_xmoe = {
    .name = "xmoe",
    .tau = 0.3,
    .init = init,
    .forward = forward,
    .backward = backward,
};
