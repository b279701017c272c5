/* MoCLE (arXiv 2312.12379) token by token (the paper clusters whole instructions): k-means on the layer's inputs after
 * a warm-up, then p = softmax((W c + b) / tau) with c a learned embedding of the token's cluster; the first expert
 * weighted p, a shared one 1 - p. Before that the shared one alone. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "moe/kmeans.h"
#include "moe/router.h"

struct cluster {
    int64_t C, samples;
    double tau;
    struct param *clusters, *centroids, *fitted; /* [C, d] learned; state [C, d] and [1] */
    double *sampled;                             /* [samples, d] of the step that fits; else NULL */
    int32_t *of_token;                           /* [N] */
    bool is_fitted;
};

static void init(struct router *router, struct params *params, const struct config *config) {
    struct cluster *own = router->own = calloc(1, sizeof *own);
    if (!own) FATAL("out of memory");
    own->C = config->router.clusters ? config->router.clusters : router->E;
    own->samples = config->router.samples;
    own->tau = config->router.tau;
    int64_t shape[] = {router->E, router->d_model}, clusters[] = {own->C, router->d_model}, one[] = {1};
    router->over_all = true;
    router->weight = params_add(params, router->layer, "router.weight", PLACE_REPLICATED, INITIAL_WEIGHT, 2, shape);
    router->bias = params_add(params, router->layer, "router.bias", PLACE_REPLICATED, INITIAL_ZERO, 1, shape);
    own->clusters = params_add(params, router->layer, "router.clusters", PLACE_REPLICATED, INITIAL_WEIGHT, 2, clusters);
    own->centroids = params_add(params, router->layer, "router.centroids", PLACE_STATE, INITIAL_ZERO, 2, clusters);
    own->fitted = params_add(params, router->layer, "router.fitted", PLACE_STATE, INITIAL_ZERO, 1, one);
}

/* Sample j is a token drawn from the whole step; each rank fills in those it holds. */
static void sample(struct router *router, const struct pass *pass, const real *x, int64_t N) {
    struct cluster *own = router->own;
    int64_t d = router->d_model, first = pass_token_first(pass);
    struct rng_place place = rng_place(pass->seed, pass->step, RNG_CLUSTER_SAMPLE, router->layer, 0);
    if (!own->sampled) own->sampled = calloc((size_t)(own->samples * d), sizeof *own->sampled);
    if (!own->sampled) FATAL("out of memory: %lld samples of k-means", (long long)own->samples);
    const real *rows = device_view(x, (size_t)(N * d) * sizeof *x);
    for (int64_t j = 0; j < own->samples; ++j) {
        uint32_t words[4];
        rng_words(words, place, (uint32_t)j, 0);
        int64_t n = words[0] % pass->tokens_global - first;
        for (int64_t i = 0; i < d && n >= 0 && n < N; ++i) own->sampled[j * d + i] = rows[n * d + i];
    }
    device_view_close(rows, x);
}

/* Asked until it is: the one number that the host remembers of the state. */
static bool is_fitted(struct cluster *own) {
    if (own->is_fitted) return true;
    real fitted;
    device->download(&fitted, own->fitted->data, sizeof fitted);
    return own->is_fitted = fitted != 0;
}

static void forward(struct router *router, const struct pass *pass, real *scores, const real *x, int64_t N) {
    struct cluster *own = router->own;
    int64_t d = router->d_model, E = router->E;
    if (!is_fitted(own)) {
        router->idle = true;
        if (pass->train && pass->step + 1 >= config_switch_step(router->config)) sample(router, pass, x, N);
        return;
    }
    own->of_token = ARENA_ARRAY(pass->arena, int32_t, N);
    struct arena_mark mark = arena_mark(pass->arena);
    real *table = ARENA_ARRAY(pass->arena, real, own->C * E);
    ops->nearest_code(own->of_token, NULL, x, own->centroids->data, pass->arena, N, own->C, d);
    ops->linear_exact_forward(table, own->clusters->data, router->weight->data, router->bias->data, own->C, E, d);
    ops->embedding_forward(scores, table, own->of_token, 1 / own->tau, N, E); /* each token has its cluster's row */
    arena_release(pass->arena, mark);
}

/* x itself gets nothing: which cluster it is in has no gradient. */
static void backward(struct router *router, const struct pass *pass, real *dx, const real *dscores, const real *x,
                     int64_t N) {
    (void)dx, (void)x;
    struct cluster *own = router->own;
    int64_t d = router->d_model, E = router->E;
    real *dtable = ARENA_ARRAY(pass->arena, real, own->C * E), *dclusters = ARENA_ARRAY(pass->arena, real, own->C * d);
    ops->fill(dtable, 0, own->C * E);
    ops->embedding_backward(dtable, dscores, own->of_token, 1 / own->tau, pass->arena, N, own->C, E);
    ops->linear_exact_backward(dclusters, false, router->weight->grad, router->bias->grad, dtable, own->clusters->data,
                               router->weight->data, own->C, E, d);
    ops->add(own->clusters->grad, own->clusters->grad, dclusters, own->C * d);
}

static void after_step(struct router *router, int64_t step) {
    struct cluster *own = router->own;
    if (is_fitted(own) || step + 1 < config_switch_step(router->config)) return;
    int64_t d = router->d_model, size = own->C * d;
    double *centroids = malloc((size_t)size * sizeof *centroids);
    real *fitted = malloc((size_t)size * sizeof *fitted), one = 1;
    CHECK(own->sampled);
    if (!centroids || !fitted) FATAL("out of memory");
    comm_allreduce(router->world, own->sampled, own->samples * d, COMM_DOUBLE, COMM_SUM);
    kmeans(centroids, own->sampled, own->samples, own->C, d,
           rng_place((uint64_t)router->config->run.seed, step, RNG_CLUSTER_START, router->layer, 0));
    for (int64_t i = 0; i < size; ++i) fitted[i] = (real)centroids[i];
    device->upload(own->centroids->data, fitted, (size_t)size * sizeof *fitted);
    device->upload(own->fitted->data, &one, sizeof one);
    free(fitted);
    free(centroids);
    free(own->sampled);
    own->sampled = NULL;
}

static void free_own(struct router *router) { free(((struct cluster *)router->own)->sampled); }

const struct router_kind router_cluster = {
    .name = "cluster",
    .ffn = FFN_SHARED,
    .one = true,
    .init = init,
    .forward = forward,
    .backward = backward,
    .free = free_own,
    .after_step = after_step,
};
