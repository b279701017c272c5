#include "nn/attention.h"

#include "nn/ragged.h"

void attention_init(struct attention *a, struct params *params, int layer, int64_t d_model, int64_t heads,
                    int64_t d_head, struct param *bias_w, struct param *bias_r) {
    int64_t in[] = {heads * d_head, d_model}, out[] = {d_model, heads * d_head};
    *a = (struct attention){
        .layer = layer, .d_model = d_model, .heads = heads, .d_head = d_head, .bias_w = bias_w, .bias_r = bias_r};
    a->query = params_add(params, layer, "attention.query", PLACE_REPLICATED, INITIAL_WEIGHT, 2, in);
    a->key = params_add(params, layer, "attention.key", PLACE_REPLICATED, INITIAL_WEIGHT, 2, in);
    a->value = params_add(params, layer, "attention.value", PLACE_REPLICATED, INITIAL_WEIGHT, 2, in);
    if (bias_w) a->position = params_add(params, layer, "attention.position", PLACE_REPLICATED, INITIAL_WEIGHT, 2, in);
    a->output = params_add(params, layer, "attention.output", PLACE_REPLICATED, INITIAL_WEIGHT, 2, out);
}

static struct attention_shape shape_of(const struct attention *a, const struct pass *pass) {
    return (struct attention_shape){
        .B = pass->rows,
        .T = pass->positions,
        .S = a->S,
        .H = a->heads,
        .D = a->d_head,
        .first = pass->ragged ? pass->ragged->first : NULL,
        .row_first = pass->row_first,
        .dropout = pass_dropout(pass, RNG_ATTENTION, a->layer, 0),
    };
}

static real *project(const struct attention *a, const struct pass *pass, const struct param *weight, const real *in,
                     int64_t N) {
    int64_t width = a->heads * a->d_head;
    real *out = ARENA_ARRAY(pass->arena, real, N * width);
    ops->linear_forward(out, in, weight->data, NULL, N, width, a->d_model);
    return out;
}

real *attention_forward(struct attention *a, const struct pass *pass, const real *in, const real *context,
                        const real *sinusoids, int64_t S) {
    int64_t width = a->heads * a->d_head, queries = pass->rows * pass->positions;
    a->in = in, a->context = context, a->sinusoids = sinusoids, a->S = S;
    a->q = ragged_spread(pass, project(a, pass, a->query, in, pass->tokens), width);
    a->k = ragged_spread(pass, project(a, pass, a->key, context, pass_keys(pass, S)), width);
    a->v = ragged_spread(pass, project(a, pass, a->value, context, pass_keys(pass, S)), width);
    a->r = sinusoids ? project(a, pass, a->position, sinusoids, S) : NULL;
    a->lse = ARENA_ARRAY(pass->arena, real, queries * a->heads);
    a->mixed = ARENA_ARRAY(pass->arena, real, queries * width);
    struct attention_shape shape = shape_of(a, pass);
    ops->attention_forward(a->mixed, a->lse, a->q, a->k, a->v, a->r, a->r ? a->bias_w->data : NULL,
                           a->r ? a->bias_r->data : NULL, pass->arena, &shape);
    real *out = ARENA_ARRAY(pass->arena, real, pass->tokens * a->d_model);
    a->packed = ragged_pack(pass, a->mixed, width);
    ops->linear_forward(out, a->packed, a->output->data, NULL, pass->tokens, a->d_model, width);
    return out;
}

/* The weight's gradient over all positions; the input's only over the last `wanted` of each row. */
static void project_backward(const struct attention *a, const struct pass *pass, struct param *weight, real *dcontext,
                             int64_t wanted, const real *dout) {
    int64_t width = a->heads * a->d_head, skip = a->S - wanted;
    ops->linear_backward(NULL, false, weight->grad, NULL, dout, a->context, weight->data, pass_keys(pass, a->S), width,
                         a->d_model);
    if (!skip) {
        ops->gemm(false, false, pass_keys(pass, a->S), a->d_model, width, 1, dout, width, weight->data, a->d_model, 1,
                  dcontext, a->d_model);
        return;
    }
    ops->gemm_batched(false, false, wanted, a->d_model, width, 1, dout + skip * width, width, a->S * width,
                      weight->data, a->d_model, 0, 1, dcontext, a->d_model, wanted * a->d_model, pass->rows);
}

void attention_backward(struct attention *a, const struct pass *pass, real *din, real *dcontext, int64_t wanted,
                        const real *dout) {
    int64_t width = a->heads * a->d_head, keys = pass->rows * a->S * width,
            queries = pass->rows * pass->positions * width;
    struct arena_mark mark = arena_mark(pass->arena);
    real *dmixed = ARENA_ARRAY(pass->arena, real, pass->tokens * width), *dq = ARENA_ARRAY(pass->arena, real, queries);
    real *dk = ARENA_ARRAY(pass->arena, real, keys), *dv = ARENA_ARRAY(pass->arena, real, keys);
    real *dr = a->r ? ARENA_ARRAY(pass->arena, real, a->S * width) : NULL;
    ops->linear_backward(dmixed, false, a->output->grad, NULL, dout, a->packed, a->output->data, pass->tokens,
                         a->d_model, width);
    struct attention_shape shape = shape_of(a, pass);
    ops->attention_backward(dq, dk, dv, dr, a->r ? a->bias_w->grad : NULL, a->r ? a->bias_r->grad : NULL,
                            ragged_spread(pass, dmixed, width), a->mixed, a->lse, a->q, a->k, a->v, a->r,
                            a->r ? a->bias_w->data : NULL, a->r ? a->bias_r->data : NULL, pass->arena, &shape);
    ops->linear_backward(din, false, a->query->grad, NULL, ragged_pack(pass, dq, width), a->in, a->query->data,
                         pass->tokens, width, a->d_model);
    project_backward(a, pass, a->key, dcontext, wanted, ragged_pack(pass, dk, width));
    project_backward(a, pass, a->value, dcontext, wanted, ragged_pack(pass, dv, width));
    if (a->r)
        ops->linear_backward(NULL, false, a->position->grad, NULL, dr, a->sinusoids, a->position->data, a->S, width,
                             a->d_model);
    arena_release(pass->arena, mark);
}
