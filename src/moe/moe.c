#include "moe/moe.h"

#include "base/fault.h"

enum status moe_init(struct moe *moe, struct params *params, const struct config *config, int layer, int64_t V,
                     struct norm block_norm, struct comm *world, struct comm *group) {
    int64_t d = config->model.d_model, h = config->model.d_inner, mix[] = {2, d};
    *moe = (struct moe){.mode = config->moe.mode,
                        .layer = layer,
                        .d_model = d,
                        .E = config->moe.experts,
                        .group = group,
                        .small_message = config->parallel.small_message,
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
    if (moe->mode != MOE_CONTINUOUS && quantizer_moves(&moe->quantizer))
        moe->quantizer.kind->after_step(&moe->quantizer, step);
}

/* ---- One way through the experts, in the pieces between which the other one can go on ---- */

/* in [N, d] from here on its way, as far as it goes without the counts. */
static void path_start(struct moe *moe, struct moe_path *path, const struct pass *pass, const real *in,
                       const int32_t *experts, int64_t K) {
    plan_start(&path->plan, pass, moe->group, experts, K, moe->E);
    path->gathered = plan_gather(&path->plan, pass, in, moe->d_model);
}

static void path_send(struct moe *moe, struct moe_path *path, const struct pass *pass, bool dropout) {
    FAULT_POINT("dispatch");
    if (dropout) path->tokens = plan_send_tokens(&path->plan, pass);
    path->flight = plan_send(&path->plan, pass, path->gathered, moe->d_model);
}

static void path_experts(struct moe *moe, struct moe_path *path, const struct pass *pass, bool dropout) {
    const int64_t *tokens = dropout ? flight_land(&path->tokens, pass) : NULL;
    const real *rows = flight_land(&path->flight, pass);
    const real *out = experts_forward(&moe->experts, &path->use, pass, rows, path->plan.groups, tokens);
    path->flight = plan_return(&path->plan, pass, out, moe->d_model);
}

static void path_return(struct moe_path *path, const struct pass *pass) {
    path->returned = flight_land(&path->flight, pass);
}

/* dslots [sent, d] in send order on their way. */
static void path_send_back(struct moe *moe, struct moe_path *path, const struct pass *pass, const real *dslots) {
    path->flight = plan_send(&path->plan, pass, dslots, moe->d_model);
}

static void path_experts_back(struct moe *moe, struct moe_path *path, const struct pass *pass) {
    const real *drows = flight_land(&path->flight, pass);
    const real *din = experts_backward(&moe->experts, &path->use, pass, drows);
    path->flight = plan_return(&path->plan, pass, din, moe->d_model);
}

/* The FFN that every token takes, on its own rank. */
static real *ffn_forward(struct moe *moe, const struct pass *pass, const real *x) {
    struct moe_ffn *shared = &moe->shared;
    int64_t N = pass->tokens, *tokens = NULL, *begin = ARENA_ARRAY(pass->host, int64_t, 2),
            *begin_here = ARENA_ARRAY(pass->arena, int64_t, 2);
    begin[0] = 0, begin[1] = N; /* all rows are the only expert's */
    device->upload(begin_here, begin, 2 * sizeof *begin);
    if (pass->train && pass->dropout > 0) {
        tokens = ARENA_ARRAY(pass->arena, int64_t, N);
        ops->row_numbers(tokens, NULL, 1, pass_token_first(pass), N);
    }
    struct groups groups = {1, begin, begin_here};
    return shared->out = experts_forward(&moe->ffn, &shared->use, pass, x, groups, tokens);
}

/* y += (1 - p) FFN(x) */
static void add_shared(struct moe *moe, const struct pass *pass, const real *x, real *y) {
    int64_t N = pass->tokens;
    real *rest = ARENA_ARRAY(pass->arena, real, N);
    moe->shared.place = ARENA_ARRAY(pass->arena, int64_t, N);
    ops->fill(rest, 1, N);
    ops->add_scaled(rest, moe->router.weights, -1, N); /* k is 1 */
    ops->row_numbers(moe->shared.place, NULL, 1, 0, N);
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

/* ---- The two paths, each as start, send, experts, end ---- */

/* y_c = sum over the chosen e of p_e FFN_e(x) */
static void continuous_start(struct moe *moe, const struct pass *pass, struct routes *routes, const real *x) {
    router_forward(&moe->router, pass, routes, x, pass->tokens);
    path_start(moe, &moe->continuous, pass, x, moe->router.routed, moe->router.K);
    router_losses(&moe->router, pass, pass->tokens); /* while the counts are on their way */
}

static real *continuous_end(struct moe *moe, const struct pass *pass, const real *x) {
    struct router *router = &moe->router;
    path_return(&moe->continuous, pass);
    real *y = ARENA_ARRAY(pass->arena, real, pass->tokens * moe->d_model);
    ops->combine_forward(y, false, moe->continuous.returned, moe->continuous.plan.place, router->weights, pass->tokens,
                         router->K, moe->d_model);
    if (router->kind->ffn == FFN_SHARED) add_shared(moe, pass, x, y);
    return y;
}

/* Returns dweights [slots]. */
static real *continuous_send_back(struct moe *moe, const struct pass *pass, const real *dy) {
    struct moe_path *path = &moe->continuous;
    real *dslots = ARENA_ARRAY(pass->arena, real, path->plan.sent * moe->d_model);
    real *dweights = ARENA_ARRAY(pass->arena, real, path->plan.slots);
    ops->combine_backward(dslots, dweights, dy, path->returned, path->plan.place, moe->router.weights, pass->tokens,
                          moe->router.K, moe->d_model);
    path_send_back(moe, path, pass, dslots);
    return dweights;
}

static void continuous_end_back(struct moe *moe, const struct pass *pass, real *dx, const real *dy, real *dweights) {
    struct moe_path *path = &moe->continuous;
    if (moe->router.kind->ffn == FFN_SHARED) add_shared_backward(moe, pass, dx, dweights, dy);
    router_backward(&moe->router, pass, dx, dweights, moe->x, pass->tokens); /* while rows fly back */
    const real *din = flight_land(&path->flight, pass);
    ops->combine_forward(dx, true, din, path->plan.place, NULL, pass->tokens, moe->router.K, moe->d_model);
}

/* y_d = LN(FFN_{k* mod E}(LN(xq))) */
static void discrete_start(struct moe *moe, const struct pass *pass, struct routes *routes, const real *x) {
    int64_t N = pass->tokens;
    real *in = quantizer_forward(&moe->quantizer, pass, routes, x, N);
    if (moe->discrete_norm) in = norm_forward(&moe->input_norm, &moe->input_use, pass, in, N);
    int32_t *experts = ARENA_ARRAY(pass->arena, int32_t, N);
    ops->modulo(experts, moe->quantizer.codes, moe->E, N);
    path_start(moe, &moe->discrete, pass, in, experts, 1);
}

static real *discrete_end(struct moe *moe, const struct pass *pass) {
    int64_t N = pass->tokens, d = moe->d_model;
    path_return(&moe->discrete, pass);
    real *y = ARENA_ARRAY(pass->arena, real, N * d);
    ops->combine_forward(y, false, moe->discrete.returned, moe->discrete.plan.place, NULL, N, 1, d);
    return moe->discrete_norm ? norm_forward(&moe->output_norm, &moe->output_use, pass, y, N) : y;
}

static void discrete_send_back(struct moe *moe, const struct pass *pass, const real *dy) {
    int64_t N = pass->tokens, d = moe->d_model;
    if (moe->discrete_norm) {
        real *dz = ARENA_ARRAY(pass->arena, real, N * d);
        norm_backward(&moe->output_norm, &moe->output_use, pass, dz, dy);
        dy = dz;
    }
    real *dslots = ARENA_ARRAY(pass->arena, real, N * d);
    ops->scatter_rows(dslots, dy, moe->discrete.plan.place, 1, N, d);
    path_send_back(moe, &moe->discrete, pass, dslots);
}

static void discrete_end_back(struct moe *moe, const struct pass *pass, real *dx) {
    int64_t N = pass->tokens, d = moe->d_model;
    real *dxq = ARENA_ARRAY(pass->arena, real, N * d);
    const real *din = flight_land(&moe->discrete.flight, pass);
    ops->combine_forward(dxq, false, din, moe->discrete.plan.place, NULL, N, 1, d);
    if (moe->discrete_norm) norm_backward(&moe->input_norm, &moe->input_use, pass, dxq, dxq);
    quantizer_backward(&moe->quantizer, pass, dx, dxq, moe->x, N);
}

/* ---- The layer: while rows of one path fly, the other one computes ---- */

static real *mix(struct moe *moe, const struct pass *pass, const real *logits) {
    real *y = ARENA_ARRAY(pass->arena, real, pass->tokens * moe->d_model);
    moe->gates = ARENA_ARRAY(pass->arena, real, 2 * pass->tokens);
    ops->mix_forward(y, moe->gates, logits, moe->y_c, moe->y_d, pass->tokens, moe->d_model);
    return y;
}

real *moe_forward(struct moe *moe, const struct pass *pass, struct routes *routes, const real *x) {
    bool continuous = moe->mode != MOE_DISCRETE, discrete = moe->mode != MOE_CONTINUOUS;
    bool dropout = pass->train && pass->dropout > 0; /* of the continuous path alone */
    struct plan *plans[2];
    int n = 0;
    real *logits = NULL;
    moe->x = x;
    if (!moe->E) return ffn_forward(moe, pass, x);
    if (continuous) continuous_start(moe, pass, routes, x), plans[n++] = &moe->continuous.plan;
    if (discrete) discrete_start(moe, pass, routes, x), plans[n++] = &moe->discrete.plan;
    if (n == 2) {
        logits = ARENA_ARRAY(pass->arena, real, 2 * pass->tokens);
        ops->linear_exact_forward(logits, x, moe->mix_weight->data, moe->mix_bias->data, pass->tokens, 2, moe->d_model);
    }
    plan_finish(plans, n, pass, moe->d_model, moe->small_message);
    if (continuous) path_send(moe, &moe->continuous, pass, dropout);
    if (discrete) path_send(moe, &moe->discrete, pass, false);
    if (continuous) path_experts(moe, &moe->continuous, pass, dropout);
    if (discrete) path_experts(moe, &moe->discrete, pass, false);
    if (continuous) moe->y_c = continuous_end(moe, pass, x);
    if (discrete) moe->y_d = discrete_end(moe, pass);
    return n == 2 ? mix(moe, pass, logits) : continuous ? (real *)moe->y_c : (real *)moe->y_d;
}

void moe_backward(struct moe *moe, const struct pass *pass, real *dx, const real *dy) {
    int64_t N = pass->tokens, d = moe->d_model;
    bool continuous = moe->mode != MOE_DISCRETE, discrete = moe->mode != MOE_CONTINUOUS;
    struct arena_mark mark = arena_mark(pass->arena);
    const real *dy_c = dy, *dy_d = dy;
    real *dweights = NULL;
    ops->fill(dx, 0, N * d);
    if (!moe->E) {
        ops->add(dx, dx, experts_backward(&moe->ffn, &moe->shared.use, pass, dy), N * d);
        arena_release(pass->arena, mark);
        return;
    }
    if (continuous && discrete) {
        real *c = ARENA_ARRAY(pass->arena, real, N * d), *e = ARENA_ARRAY(pass->arena, real, N * d);
        real *dlogits = ARENA_ARRAY(pass->arena, real, 2 * N);
        ops->mix_backward(c, e, dlogits, dy, moe->gates, moe->y_c, moe->y_d, N, d);
        dy_c = c, dy_d = e;
        ops->linear_exact_backward(dx, true, moe->mix_weight->grad, moe->mix_bias->grad, dlogits, moe->x,
                                   moe->mix_weight->data, N, 2, d);
    }
    if (continuous) dweights = continuous_send_back(moe, pass, dy_c);
    if (discrete) discrete_send_back(moe, pass, dy_d);
    if (continuous) path_experts_back(moe, &moe->continuous, pass);
    if (discrete) path_experts_back(moe, &moe->discrete, pass);
    if (continuous) continuous_end_back(moe, pass, dx, dy_c, dweights);
    if (discrete) discrete_end_back(moe, pass, dx);
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
        *hash += routes_hash(moe->router.seen, first, N, moe->router.K);
    }
    if (moe->mode == MOE_CONTINUOUS) return;
    for (int64_t e = 0; e < moe->E; ++e) load[e] += (double)moe->discrete.plan.counts[e];
    for (int64_t n = 0; n < N; ++n) usage[moe->quantizer.seen[n]]++;
    *hash += 31 * routes_hash(moe->quantizer.seen, first, N, 1); /* 31: a code is not an expert */
}
