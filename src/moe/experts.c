#include "moe/experts.h"

#include <stdio.h>

static struct param *add(struct params *params, int layer, const char *name, const char *part, enum placement placement,
                         struct initial initial, int rank, const int64_t *shape) {
    char full[PARAM_NAME];
    snprintf(full, sizeof full, "%s.%s", name, part);
    return params_add(params, layer, full, placement, initial, rank, shape);
}

static void add_all(struct experts *experts, struct params *params, const char *name, enum placement placement,
                    int64_t E) {
    int64_t d = experts->d_model, h = experts->d_inner, w1[] = {E, h, d}, w2[] = {E, d, h};
    experts->w1 = add(params, experts->layer, name, "w1", placement, INITIAL_WEIGHT, 3, w1);
    experts->b1 = add(params, experts->layer, name, "b1", placement, INITIAL_ZERO, 2, w1);
    experts->w2 = add(params, experts->layer, name, "w2", placement, INITIAL_WEIGHT, 3, w2);
    experts->b2 = add(params, experts->layer, name, "b2", placement, INITIAL_ZERO, 2, w2);
}

void experts_init(struct experts *experts, struct params *params, int layer, int64_t E, int64_t d_model,
                  int64_t d_inner) {
    *experts = (struct experts){layer, d_model, d_inner, params->experts_first, params->experts_count, 0, 0, 0, 0};
    add_all(experts, params, "moe", PLACE_EXPERT, E);
}

void experts_init_one(struct experts *experts, struct params *params, int layer, const char *name, int64_t number,
                      int64_t d_model, int64_t d_inner) {
    *experts = (struct experts){layer, d_model, d_inner, number, 1, 0, 0, 0, 0};
    add_all(experts, params, name, PLACE_REPLICATED, 1);
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
