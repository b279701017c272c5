#include "model/block.h"

enum status block_init(struct block *block, struct params *params, const struct config *config, int layer, int64_t V,
                       struct param *bias_w, struct param *bias_r, struct comm *world, struct comm *group) {
    int64_t d = config->model.d_model;
    *block = (struct block){.layer = layer, .norm = config->model.norm, .d_model = d, .params_first = params->count};
    attention_init(&block->attention, params, layer, d, config->model.heads, config->model.d_head, bias_w, bias_r);
    block->attention_norm = norm_add(params, layer, "attention_norm", d);
    block->moe_norm = norm_add(params, layer, "moe_norm", d);
    return moe_init(&block->moe, params, config, layer, V, block->moe_norm, world, group);
}

/* [B, length + T, d]: each row's memory, then its x. */
static const real *join(const struct block *block, const struct pass *pass, const real *memory, int64_t capacity,
                        int64_t length, const real *x) {
    if (!length) return x;
    int64_t d = block->d_model, T = pass->positions, S = length + T;
    real *joined = ARENA_ARRAY(pass->arena, real, pass->rows * S * d);
    ops->copy_rows(joined, S * d, memory, capacity * d, pass->rows, length * d);
    ops->copy_rows(joined + length * d, S * d, x, T * d, pass->rows, T * d);
    return joined;
}

/* [B, T, d]: the last T positions of each row. */
static const real *last(const struct block *block, const struct pass *pass, const real *joined) {
    if (!block->memory_length) return joined;
    int64_t d = block->d_model, T = pass->positions, S = block->memory_length + T;
    real *out = ARENA_ARRAY(pass->arena, real, pass->tokens * d);
    ops->copy_rows(out, T * d, joined + block->memory_length * d, S * d, pass->rows, T * d);
    return out;
}

/* x + dropout(y), into y. */
static real *residual(const struct block *block, const struct pass *pass, enum rng_site site, const real *x, real *y) {
    ops->dropout(y, x, y, pass_dropout(pass, site, block->layer, 0), pass_token_first(pass), pass->tokens,
                 block->d_model);
    return y;
}

const real *block_forward(struct block *block, const struct pass *pass, struct routes *routes, const real *x,
                          const real *memory, int64_t capacity, int64_t length, const real *sinusoids) {
    int64_t S = length + pass->positions;
    const real *in = x, *context = join(block, pass, memory, capacity, length, x);
    block->memory_length = length;
    if (block->norm == NORM_PRE) {
        context = norm_forward(&block->attention_norm, &block->attention_use, pass, context, pass_keys(pass, S));
        in = last(block, pass, context);
    }
    real *a = attention_forward(&block->attention, pass, in, context, sinusoids, S);
    const real *u = residual(block, pass, RNG_ATTENTION_OUTPUT, x, a);
    if (block->norm == NORM_POST)
        u = norm_forward(&block->attention_norm, &block->attention_use, pass, u, pass->tokens);
    const real *moe_in =
        block->norm == NORM_PRE ? norm_forward(&block->moe_norm, &block->moe_use, pass, u, pass->tokens) : u;
    real *y = moe_forward(&block->moe, pass, routes, moe_in);
    block->out = residual(block, pass, RNG_MOE_OUTPUT, u, y);
    if (block->norm == NORM_POST)
        block->out = norm_forward(&block->moe_norm, &block->moe_use, pass, block->out, pass->tokens);
    return block->out;
}

/* da = dropout's gradient of dy, into da. */
static void residual_backward(const struct block *block, const struct pass *pass, enum rng_site site, real *da,
                              const real *dy) {
    ops->dropout(da, NULL, dy, pass_dropout(pass, site, block->layer, 0), pass_token_first(pass), pass->tokens,
                 block->d_model);
}

/* du [N, d] overwritten: the gradient at the attention's residual sum, or (post) at its norm's output. */
static void moe_half_backward(struct block *block, const struct pass *pass, real *du, const real *dout) {
    int64_t n = pass->tokens * block->d_model;
    real *dy = ARENA_ARRAY(pass->arena, real, n), *dsum = ARENA_ARRAY(pass->arena, real, n);
    if (block->norm == NORM_POST) {
        norm_backward(&block->moe_norm, &block->moe_use, pass, dsum, dout);
        dout = dsum;
    }
    residual_backward(block, pass, RNG_MOE_OUTPUT, dy, dout);
    moe_backward(&block->moe, pass, du, dy);
    if (block->norm == NORM_PRE) norm_backward(&block->moe_norm, &block->moe_use, pass, du, du);
    ops->add(du, du, dout, n);
}

/* To the last T positions of each row of out those of in, of whose rows the one has T positions, the other S. */
static void add_last(const struct block *block, const struct pass *pass, real *out, int64_t out_positions,
                     const real *in, int64_t in_positions) {
    int64_t d = block->d_model, T = pass->positions;
    if (!block->memory_length) { /* rows may be ragged */
        ops->add(out, out, in, pass->tokens * d);
        return;
    }
    ops->add_rows(out + (out_positions - T) * d, out_positions * d, in + (in_positions - T) * d, in_positions * d,
                  pass->rows, T * d);
}

void block_backward(struct block *block, const struct pass *pass, real *dx, const real *dout) {
    int64_t d = block->d_model, T = pass->positions, S = block->memory_length + T, n = pass->tokens * d;
    struct arena_mark mark = arena_mark(pass->arena);
    real *da = ARENA_ARRAY(pass->arena, real, n), *din = ARENA_ARRAY(pass->arena, real, n);
    moe_half_backward(block, pass, dx, dout);
    if (block->norm == NORM_POST) norm_backward(&block->attention_norm, &block->attention_use, pass, dx, dx);
    residual_backward(block, pass, RNG_ATTENTION_OUTPUT, da, dx);
    if (block->norm == NORM_POST) { /* memory gets no gradient: only the last T positions of the context are wanted */
        attention_backward(&block->attention, pass, din, dx, T, da);
        ops->add(dx, dx, din, n);
    } else { /* the norm before the projections has its gradient from memory's positions too */
        int64_t keys = pass_keys(pass, S) * d;
        real *dcontext = ARENA_ARRAY(pass->arena, real, keys);
        ops->fill(dcontext, 0, keys);
        attention_backward(&block->attention, pass, din, dcontext, S, da);
        add_last(block, pass, dcontext, S, din, T);
        norm_backward(&block->attention_norm, &block->attention_use, pass, dcontext, dcontext);
        add_last(block, pass, dx, T, dcontext, S);
    }
    arena_release(pass->arena, mark);
}
