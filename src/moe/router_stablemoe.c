/* s = x . m_e / max(norm(m_e), 1e-4), m orthogonal at the start: StableMoE (arXiv 2204.08396). With two stages a light
 * router, a narrow embedding of the token's symbol against centroids of its own, learns to choose as this one does, and
 * from router.switch_step on chooses, frozen. */
#include <stdlib.h>

#include "base/log.h"
#include "moe/router.h"

enum { LIGHT = 50 }; /* width of the light router */
static const double norm_floor = 1e-4;

struct stable {
    struct router_cosine cosine;
    struct param *embedding, *centroids; /* [V, LIGHT], [E, LIGHT]; NULL with one stage */
    bool learns;                         /* the light router, in this pass */
    real *features, *logits, *lse;       /* [N, LIGHT], [N, E], [N] */
    int32_t *targets;                    /* [N] the main router's first choice */
};

static void init(struct router *router, struct params *params, const struct config *config) {
    int64_t shape[] = {router->E, router->d_model}, embedding[] = {router->V, LIGHT}, centroids[] = {router->E, LIGHT};
    struct initial orthogonal = {INITIAL_ORTHOGONAL, 0.32, 0};
    struct stable *own = router->own = calloc(1, sizeof *own);
    if (!own) FATAL("out of memory");
    router->weight = params_add(params, router->layer, "router.embedding", PLACE_REPLICATED, orthogonal, 2, shape);
    if (!config->router.two_stage) return;
    own->embedding =
        params_add(params, router->layer, "router.token_embedding", PLACE_REPLICATED, INITIAL_WEIGHT, 2, embedding);
    own->centroids =
        params_add(params, router->layer, "router.centroids", PLACE_REPLICATED, INITIAL_WEIGHT, 2, centroids);
}

void router_cosine_forward(struct router *router, const struct pass *pass, struct router_cosine *cosine, real *scores,
                           const real *x, int64_t N, int64_t D) {
    cosine->unit = ARENA_ARRAY(pass->arena, real, router->E * D);
    cosine->norms = ARENA_ARRAY(pass->arena, real, router->E);
    ops->normalize_rows_forward(cosine->unit, cosine->norms, router->weight->data, norm_floor, router->E, D);
    ops->linear_exact_forward(scores, x, cosine->unit, NULL, N, router->E, D);
}

void router_cosine_backward(struct router *router, const struct pass *pass, const struct router_cosine *cosine,
                            bool add, real *dx, const real *dscores, const real *x, int64_t N, int64_t D) {
    real *dunit = ARENA_ARRAY(pass->arena, real, router->E * D);
    ops->fill(dunit, 0, router->E * D);
    ops->linear_exact_backward(dx, add, dunit, NULL, dscores, x, cosine->unit, N, router->E, D);
    ops->normalize_rows_backward(router->weight->grad, dunit, cosine->unit, cosine->norms, norm_floor, router->E, D);
}

static void forward(struct router *router, const struct pass *pass, real *scores, const real *x, int64_t N) {
    struct stable *own = router->own;
    router_cosine_forward(router, pass, &own->cosine, scores, x, N, router->d_model);
    if (!own->embedding) return;
    bool second = pass->step >= config_switch_step(router->config);
    own->learns = pass->train && !second;
    own->embedding->still = own->centroids->still = second;
    if (!own->learns && !second) return;
    CHECK(pass->ids);
    own->features = ARENA_ARRAY(pass->arena, real, N * LIGHT);
    own->logits = ARENA_ARRAY(pass->arena, real, N * router->E);
    ops->embedding_forward(own->features, own->embedding->data, pass->ids, 1, N, LIGHT);
    ops->linear_exact_forward(own->logits, own->features, own->centroids->data, NULL, N, router->E, LIGHT);
    if (!second) return;
    router->choose = own->logits;
    router->balances = false;
}

static void chosen(struct router *router, const struct pass *pass, int64_t N) {
    struct stable *own = router->own;
    if (!own->learns) return;
    real *losses = ARENA_ARRAY(pass->arena, real, N);
    own->lse = ARENA_ARRAY(pass->arena, real, N);
    own->targets = ARENA_ARRAY(pass->arena, int32_t, N);
    ops->take_column(own->targets, router->experts, N, router->K);
    ops->cross_entropy_forward(losses, own->lse, own->logits, own->targets, N, router->E);
    ops->sum(pass_sum(pass, router->layer, SUM_DISTILL), losses, N);
}

static void backward(struct router *router, const struct pass *pass, real *dx, const real *dscores, const real *x,
                     int64_t N) {
    struct stable *own = router->own;
    router_cosine_backward(router, pass, &own->cosine, true, dx, dscores, x, N, router->d_model);
    if (!own->learns) return;
    real *dfeatures = ARENA_ARRAY(pass->arena, real, N * LIGHT);
    ops->cross_entropy_backward(own->logits, own->logits, own->lse, own->targets, 1 / (double)pass->tokens_global, N,
                                router->E);
    ops->linear_exact_backward(dfeatures, false, own->centroids->grad, NULL, own->logits, own->features,
                               own->centroids->data, N, router->E, LIGHT);
    ops->embedding_backward(own->embedding->grad, dfeatures, pass->ids, 1, pass->arena, N, router->V, LIGHT);
}

const struct router_kind router_stablemoe = {
    .name = "stablemoe",
    .tau = 0.3,
    .init = init,
    .forward = forward,
    .chosen = chosen,
    .backward = backward,
};
