#include "moe/experts.h"

void experts_init(struct experts *experts, struct params *params, int layer, int64_t E, int64_t d_model,
                  int64_t d_inner) {
    int64_t w1[] = {E, d_inner, d_model}, w2[] = {E, d_model, d_inner};
    *experts = (struct experts){
        .layer = layer,
        .d_model = d_model,
        .d_inner = d_inner,
        .first = params->experts_first,
        .count = params->experts_count,
        .w1 = params_add(params, layer, "moe.w1", PLACE_EXPERT, INITIAL_WEIGHT, 3, w1),
        .b1 = params_add(params, layer, "moe.b1", PLACE_EXPERT, INITIAL_ZERO, 2, w1),
        .w2 = params_add(params, layer, "moe.w2", PLACE_EXPERT, INITIAL_WEIGHT, 3, w2),
        .b2 = params_add(params, layer, "moe.b2", PLACE_EXPERT, INITIAL_ZERO, 2, w2),
    };
}

static struct dropout expert_dropout(const struct experts *experts, const struct pass *pass, int64_t i, bool wanted) {
    struct dropout dropout = pass_dropout(pass, RNG_EXPERT, experts->layer, (int)(experts->first + i));
    if (!wanted) dropout.p = 0;
    return dropout;
}

real *experts_forward(const struct experts *experts, struct experts_use *use, const struct pass *pass, const real *in,
                      const int64_t *begin, const int64_t *tokens) {
    int64_t d = experts->d_model, h = experts->d_inner, rows = begin[experts->count];
    *use = (struct experts_use){in, ARENA_ARRAY(pass->arena, real, rows * h), begin, tokens != NULL};
    real *out = ARENA_ARRAY(pass->arena, real, rows * d);
    for (int64_t i = 0; i < experts->count; ++i) {
        int64_t at = begin[i], N = begin[i + 1] - at;
        real *hidden = use->hidden + at * h;
        ops->linear_forward(hidden, in + at * d, experts->w1->data + i * h * d, NULL, N, h, d);
        ops->relu_forward(hidden, experts->b1->data + i * h, tokens ? tokens + at : NULL,
                          expert_dropout(experts, pass, i, tokens != NULL), N, h);
        ops->linear_forward(out + at * d, hidden, experts->w2->data + i * d * h, experts->b2->data + i * d, N, d, h);
    }
    return out;
}

real *experts_backward(const struct experts *experts, const struct experts_use *use, const struct pass *pass,
                       const real *dout) {
    int64_t d = experts->d_model, h = experts->d_inner, rows = use->begin[experts->count];
    real *din = ARENA_ARRAY(pass->arena, real, rows * d);
    struct arena_mark mark = arena_mark(pass->arena);
    real *dhidden = ARENA_ARRAY(pass->arena, real, rows * h);
    for (int64_t i = 0; i < experts->count; ++i) {
        int64_t at = use->begin[i], N = use->begin[i + 1] - at;
        if (!N) continue;
        real *dh = dhidden + at * h;
        const real *hidden = use->hidden + at * h;
        ops->linear_backward(dh, false, experts->w2->grad + i * d * h, experts->b2->grad + i * d, dout + at * d, hidden,
                             experts->w2->data + i * d * h, N, d, h);
        ops->relu_backward(dh, experts->b1->grad + i * h, hidden, expert_dropout(experts, pass, i, use->dropout),
                           pass->arena, N, h);
        ops->linear_backward(din + at * d, false, experts->w1->grad + i * h * d, NULL, dh, use->in + at * d,
                             experts->w1->data + i * h * d, N, h, d);
    }
    arena_release(pass->arena, mark);
    return din;
}
