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

/* Of the first expert here; the others' lanes follow. */
static struct dropout expert_dropout(const struct experts *experts, const struct pass *pass, bool wanted) {
    struct dropout dropout = pass_dropout(pass, RNG_EXPERT, experts->layer, (int)experts->first);
    if (!wanted) dropout.p = 0;
    return dropout;
}

real *experts_forward(const struct experts *experts, struct experts_use *use, const struct pass *pass, const real *in,
                      struct groups groups, const int64_t *tokens) {
    int64_t d = experts->d_model, h = experts->d_inner, rows = groups.begin[groups.count];
    *use = (struct experts_use){in, ARENA_ARRAY(pass->arena, real, rows * h), groups, tokens != NULL};
    real *out = ARENA_ARRAY(pass->arena, real, rows * d);
    ops->grouped_linear_forward(use->hidden, in, experts->w1->data, NULL, &groups, h, d);
    ops->grouped_relu_forward(use->hidden, experts->b1->data, tokens, expert_dropout(experts, pass, tokens != NULL),
                              &groups, h);
    ops->grouped_linear_forward(out, use->hidden, experts->w2->data, experts->b2->data, &groups, d, h);
    return out;
}

real *experts_backward(const struct experts *experts, const struct experts_use *use, const struct pass *pass,
                       const real *dout) {
    const struct groups *groups = &use->groups;
    int64_t d = experts->d_model, h = experts->d_inner, rows = groups->begin[groups->count];
    real *din = ARENA_ARRAY(pass->arena, real, rows * d);
    struct arena_mark mark = arena_mark(pass->arena);
    real *dhidden = ARENA_ARRAY(pass->arena, real, rows * h);
    ops->grouped_linear_backward(dhidden, experts->w2->grad, experts->b2->grad, dout, use->hidden, experts->w2->data,
                                 groups, d, h);
    ops->grouped_relu_backward(dhidden, experts->b1->grad, use->hidden, expert_dropout(experts, pass, use->dropout),
                               pass->arena, groups, h);
    ops->grouped_linear_backward(din, experts->w1->grad, NULL, dhidden, use->in, experts->w1->data, groups, h, d);
    arena_release(pass->arena, mark);
    return din;
}
