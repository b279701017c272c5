#include "moe/moe.h"

enum status moe_init(struct moe *moe, struct params *params, const struct config *config, int layer, int64_t V,
                     struct norm block_norm, struct comm *world, struct comm *group) {
    int64_t d = config->model.d_model, h = config->model.d_inner, mix[] = {2, d};
    *moe = (struct moe){.mode = config->moe.mode,
                        .layer = layer,
                        .d_model = d,
                        .E = config->moe.experts,
                        .group = group,
                        .discrete_norm = config->moe.discrete_norm,
                        .input_norm = block_norm,
                        .output_norm = block_norm};
    if (moe->mode != MOE_DISCRETE) {
        enum status status = router_init(&moe->router, params, config, layer, V, world);
        if (status) return status;
        moe->E = moe->router.E;
        enum router_ffn ffn = moe->router.kind->ffn;
        if (ffn == FFN_ONLY) experts_init_one(&moe->ffn, params, layer, "ffn", 0, d, h * config->router.dense_width);
        if (ffn == FFN_SHARED) experts_init_one(&moe->ffn, params, layer, "shared", moe->E, d, h);
    }
    if (moe->E) experts_init(&moe->experts, params, layer, moe->E, d, h);
    if (moe->mode == MOE_CONTINUOUS) return STATUS_OK;
    if (moe->discrete_norm && !config->moe.share_norm) {
        moe->input_norm = norm_add(params, layer, "moe.input_norm", d);
        moe->output_norm = norm_add(params, layer, "moe.output_norm", d);
    }
    if (moe->mode == MOE_JOINT) {
        moe->mix_weight = params_add(params, layer, "mix.weight", PLACE_REPLICATED, INITIAL_WEIGHT, 2, mix);
        moe->mix_bias = params_add(params, layer, "mix.bias", PLACE_REPLICATED, INITIAL_ZERO, 1, mix);
    }
    return quantizer_init(&moe->quantizer, params, config, layer, world);
}

void moe_free(struct moe *moe) {
    router_free(&moe->router);
    quantizer_free(&moe->quantizer);
}

void moe_start(struct moe *moe) {
    if (moe->mode != MOE_CONTINUOUS && moe->quantizer.kind->start) moe->quantizer.kind->start(&moe->quantizer);
}

void moe_after_step(struct moe *moe, int64_t step) {
    if (moe->mode != MOE_DISCRETE && moe->router.kind->after_step) moe->router.kind->after_step(&moe->router, step);
    if (moe->mode != MOE_CONTINUOUS && moe->quantizer.kind->after_step)
        moe->quantizer.kind->after_step(&moe->quantizer, step);
}

/* Rows to their experts and back, in send order. */
static void path_forward(struct moe *moe, struct moe_path *path, const struct pass *pass, const real *in,
                         const int32_t *experts, int64_t K, bool dropout) {
    plan_build(&path->plan, pass->arena, moe->group, experts, pass->tokens, K, moe->E);
    const int64_t *tokens = dropout ? plan_tokens(&path->plan, pass->arena, pass_token_first(pass)) : NULL;
    const real *rows = plan_dispatch(&path->plan, pass->arena, in, moe->d_model);
    const real *out = experts_forward(&moe->experts, &path->use, pass, rows, path->plan.begin, tokens);
    path->returned = plan_return(&path->plan, pass->arena, out, moe->d_model);
}

/* dslots in send order; returns the gradient of the rows sent, in send order. */
static const real *path_backward(struct moe *moe, struct moe_path *path, const struct pass *pass, const real *dslots) {
    const real *drows = plan_send(&path->plan, pass->arena, dslots, moe->d_model);
    const real *din = experts_backward(&moe->experts, &path->use, pass, drows);
    return plan_return(&path->plan, pass->arena, din, moe->d_model);
}

/* The FFN that every token takes, on its own rank. */
static real *ffn_forward(struct moe *moe, const struct pass *pass, const real *x) {
    struct moe_ffn *shared = &moe->shared;
    int64_t N = pass->tokens, *tokens = NULL;
    shared->begin[0] = 0, shared->begin[1] = N;
    if (pass->train && pass->dropout > 0) {
        tokens = ARENA_ARRAY(pass->arena, int64_t, N);
        for (int64_t n = 0; n < N; ++n) tokens[n] = pass_token_first(pass) + n;
    }
    return shared->out = experts_forward(&moe->ffn, &shared->use, pass, x, shared->begin, tokens);
}

/* y += (1 - p) FFN(x) */
static void add_shared(struct moe *moe, const struct pass *pass, const real *x, real *y) {
    int64_t N = pass->tokens;
    real *rest = ARENA_ARRAY(pass->arena, real, N);
    moe->shared.place = ARENA_ARRAY(pass->arena, int64_t, N);
    ops->fill(rest, 1, N);
    ops->add_scaled(rest, moe->router.weights, -1, N); /* k is 1 */
    for (int64_t n = 0; n < N; ++n) moe->shared.place[n] = n;
    moe->shared.weights = rest;
    ops->combine_forward(y, true, ffn_forward(moe, pass, x), moe->shared.place, rest, N, 1, moe->d_model);
}

/* dx adds; dweights [N] of p gets what the shared expert loses to it. */
static void add_shared_backward(struct moe *moe, const struct pass *pass, real *dx, real *dweights, const real *dy) {
    int64_t N = pass->tokens, d = moe->d_model;
    real *dout = ARENA_ARRAY(pass->arena, real, N * d), *drest = ARENA_ARRAY(pass->arena, real, N);
    ops->combine_backward(dout, drest, dy, moe->shared.out, moe->shared.place, moe->shared.weights, N, 1, d);
    const real *din = experts_backward(&moe->ffn, &moe->shared.use, pass, dout);
    ops->add(dx, dx, din, N * d);
    ops->add_scaled(dweights, drest, -1, N);
}

/* y_c = sum over the chosen e of p_e FFN_e(x) */
static real *continuous_forward(struct moe *moe, const struct pass *pass, struct routes *routes, const real *x) {
    struct router *router = &moe->router;
    if (!moe->E) return ffn_forward(moe, pass, x);
    router_forward(router, pass, routes, x, pass->tokens);
    path_forward(moe, &moe->continuous, pass, x, router->routed, router->K, pass->train && pass->dropout > 0);
    real *y = ARENA_ARRAY(pass->arena, real, pass->tokens * moe->d_model);
    ops->combine_forward(y, false, moe->continuous.returned, moe->continuous.plan.place, router->weights, pass->tokens,
                         router->K, moe->d_model);
    if (router->kind->ffn == FFN_SHARED) add_shared(moe, pass, x, y);
    return y;
}

static void continuous_backward(struct moe *moe, const struct pass *pass, real *dx, const real *dy) {
    struct moe_path *path = &moe->continuous;
    struct router *router = &moe->router;
    int64_t N = pass->tokens, d = moe->d_model;
    if (!moe->E) {
        ops->add(dx, dx, experts_backward(&moe->ffn, &moe->shared.use, pass, dy), N * d);
        return;
    }
    real *dslots = ARENA_ARRAY(pass->arena, real, path->plan.sent * d);
    real *dweights = ARENA_ARRAY(pass->arena, real, path->plan.slots);
    ops->combine_backward(dslots, dweights, dy, path->returned, path->plan.place, router->weights, N, router->K, d);
    const real *din = path_backward(moe, path, pass, dslots);
    ops->combine_forward(dx, true, din, path->plan.place, NULL, N, router->K, d);
    if (router->kind->ffn == FFN_SHARED) add_shared_backward(moe, pass, dx, dweights, dy);
    router_backward(router, pass, dx, dweights, moe->x, N);
}

/* y_d = LN(FFN_{k* mod E}(LN(xq))) */
static real *discrete_forward(struct moe *moe, const struct pass *pass, struct routes *routes, const real *x) {
    int64_t N = pass->tokens, d = moe->d_model;
    real *in = quantizer_forward(&moe->quantizer, pass, routes, x, N);
    if (moe->discrete_norm) in = norm_forward(&moe->input_norm, &moe->input_use, pass, in, N);
    int32_t *experts = ARENA_ARRAY(pass->arena, int32_t, N);
    for (int64_t n = 0; n < N; ++n) experts[n] = moe->quantizer.codes[n] % (int32_t)moe->E;
    path_forward(moe, &moe->discrete, pass, in, experts, 1, false);
    real *y = ARENA_ARRAY(pass->arena, real, N * d);
    ops->combine_forward(y, false, moe->discrete.returned, moe->discrete.plan.place, NULL, N, 1, d);
    return moe->discrete_norm ? norm_forward(&moe->output_norm, &moe->output_use, pass, y, N) : y;
}

static void discrete_backward(struct moe *moe, const struct pass *pass, real *dx, const real *dy) {
    struct moe_path *path = &moe->discrete;
    int64_t N = pass->tokens, d = moe->d_model;
    real *dslots = ARENA_ARRAY(pass->arena, real, N * d), *din = ARENA_ARRAY(pass->arena, real, N * d);
    if (moe->discrete_norm) {
        norm_backward(&moe->output_norm, &moe->output_use, pass, din, dy);
        dy = din;
    }
    ops->gather_rows(dslots, dy, path->plan.order, 1, N, d);
    ops->combine_forward(din, false, path_backward(moe, path, pass, dslots), path->plan.place, NULL, N, 1, d);
    if (moe->discrete_norm) norm_backward(&moe->input_norm, &moe->input_use, pass, din, din);
    quantizer_backward(&moe->quantizer, pass, dx, din, moe->x, N);
}

real *moe_forward(struct moe *moe, const struct pass *pass, struct routes *routes, const real *x) {
    int64_t N = pass->tokens, d = moe->d_model;
    moe->x = x;
    if (moe->mode == MOE_CONTINUOUS) return continuous_forward(moe, pass, routes, x);
    if (moe->mode == MOE_DISCRETE) return discrete_forward(moe, pass, routes, x);
    moe->y_c = continuous_forward(moe, pass, routes, x);
    moe->y_d = discrete_forward(moe, pass, routes, x);
    moe->gates = ARENA_ARRAY(pass->arena, real, 2 * N);
    real *logits = ARENA_ARRAY(pass->arena, real, 2 * N), *y = ARENA_ARRAY(pass->arena, real, N * d);
    ops->linear_forward(logits, x, moe->mix_weight->data, moe->mix_bias->data, N, 2, d);
    ops->mix_forward(y, moe->gates, logits, moe->y_c, moe->y_d, N, d);
    return y;
}

void moe_backward(struct moe *moe, const struct pass *pass, real *dx, const real *dy) {
    int64_t N = pass->tokens, d = moe->d_model;
    struct arena_mark mark = arena_mark(pass->arena);
    ops->fill(dx, 0, N * d);
    if (moe->mode == MOE_CONTINUOUS) continuous_backward(moe, pass, dx, dy);
    if (moe->mode == MOE_DISCRETE) discrete_backward(moe, pass, dx, dy);
    if (moe->mode == MOE_JOINT) {
        real *dy_c = ARENA_ARRAY(pass->arena, real, N * d), *dy_d = ARENA_ARRAY(pass->arena, real, N * d);
        real *dlogits = ARENA_ARRAY(pass->arena, real, 2 * N);
        ops->mix_backward(dy_c, dy_d, dlogits, dy, moe->gates, moe->y_c, moe->y_d, N, d);
        ops->linear_backward(dx, true, moe->mix_weight->grad, moe->mix_bias->grad, dlogits, moe->x,
                             moe->mix_weight->data, N, 2, d);
        continuous_backward(moe, pass, dx, dy_c);
        discrete_backward(moe, pass, dx, dy_d);
    }
    arena_release(pass->arena, mark);
}

void moe_count(const struct moe *moe, const struct pass *pass, double *load, double *usage, double *dropped,
               uint64_t *hash) {
    int64_t N = pass->tokens, first = pass_token_first(pass);
    if (moe->mode != MOE_DISCRETE && moe->E) {
        const struct plan *plan = &moe->continuous.plan;
        for (int64_t e = 0; e < moe->E; ++e) load[e] += (double)plan->counts[e];
        dropped[0] += moe->router.idle ? 0 : (double)(plan->slots - plan->sent);
        dropped[1] += (double)plan->slots;
        *hash += routes_hash(moe->router.experts, first, N, moe->router.K);
    }
    if (moe->mode == MOE_CONTINUOUS) return;
    for (int64_t e = 0; e < moe->E; ++e) load[e] += (double)moe->discrete.plan.counts[e];
    for (int64_t n = 0; n < N; ++n) usage[moe->quantizer.codes[n]]++;
    *hash += 31 * routes_hash(moe->quantizer.codes, first, N, 1); /* 31: a code is not an expert */
}
