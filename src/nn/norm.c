#include "nn/norm.h"

#include <stdio.h>

struct norm norm_add(struct params *params, int layer, const char *name, int64_t D) {
    char weight[PARAM_NAME], bias[PARAM_NAME];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    struct initial around_one = {INITIAL_NORMAL, 1, 0.02};
    return (struct norm){
        params_add(params, layer, weight, PLACE_REPLICATED, around_one, 1, &D),
        params_add(params, layer, bias, PLACE_REPLICATED, INITIAL_ZERO, 1, &D),
    };
}

real *norm_forward(const struct norm *norm, struct norm_use *use, const struct pass *pass, const real *in, int64_t N) {
    int64_t D = norm->weight->size;
    real *out = ARENA_ARRAY(pass->arena, real, N * D);
    *use = (struct norm_use){in, ARENA_ARRAY(pass->arena, real, 2 * N), N};
    ops->layer_norm_forward(out, use->stats, in, norm->weight->data, norm->bias->data, N, D);
    return out;
}

void norm_backward(const struct norm *norm, const struct norm_use *use, const struct pass *pass, real *din,
                   const real *dout) {
    ops->layer_norm_backward(din, norm->weight->grad, norm->bias->grad, dout, use->in, use->stats, norm->weight->data,
                             pass->arena, use->N, norm->weight->size);
}
