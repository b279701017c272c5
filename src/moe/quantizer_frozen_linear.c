/* V = C W^T + b with C frozen (arXiv 2411.02038): every code moves with each gradient, none is left behind. */
#include <math.h>
#include <stdlib.h>

#include "base/log.h"
#include "moe/quantizer.h"

struct frozen_linear {
    struct param *basis, *weight, *bias; /* state C [M, d]; W [d, d], b [d] */
};

static void init(struct quantizer *q, struct params *params, const struct config *config) {
    (void)config;
    struct frozen_linear *own = q->own = calloc(1, sizeof *own);
    if (!own) FATAL("out of memory");
    int64_t basis[] = {q->M, q->width}, weight[] = {q->width, q->width};
    double edge = 1 / sqrt((double)q->width);
    struct initial uniform = {INITIAL_UNIFORM, -edge, edge}, normal = {INITIAL_NORMAL, 0, edge};
    own->basis = params_add(params, q->layer, "quantizer.basis", PLACE_STATE, normal, 2, basis);
    own->weight = params_add(params, q->layer, "quantizer.weight", PLACE_REPLICATED, uniform, 2, weight);
    own->bias = params_add(params, q->layer, "quantizer.bias", PLACE_REPLICATED, uniform, 1, weight);
}

static void prepare(struct quantizer *q, const struct pass *pass, const real *x, int64_t N) {
    (void)x, (void)N;
    struct frozen_linear *own = q->own;
    real *v = ARENA_ARRAY(pass->arena, real, q->M * q->width);
    ops->linear_exact_forward(v, own->basis->data, own->weight->data, own->bias->data, q->M, q->width, q->width);
    q->v = v;
}

static void backward(struct quantizer *q, const struct pass *pass, real *dx, const real *dz, const real *dv,
                     const real *x, int64_t N) {
    (void)pass, (void)dx, (void)dz, (void)x, (void)N;
    struct frozen_linear *own = q->own;
    ops->linear_exact_backward(NULL, false, own->weight->grad, own->bias->grad, dv, own->basis->data, own->weight->data,
                               q->M, q->width, q->width);
}

const struct quantizer_kind quantizer_frozen_linear = {
    .name = "frozen_linear",
    .codes_lose = 1,
    .init = init,
    .prepare = prepare,
    .backward = backward,
};
