/* Few dimensions (arXiv 2110.04627): z = x P, on the unit sphere as `cosine` is, and xq = zq Q back to d. */
#include <stdlib.h>

#include "base/log.h"
#include "moe/quantizer.h"

struct factorized {
    struct param *down, *up; /* [width, d], [d, width]; P and Q transposed, as all weights are */
    real *z_norms, *v_norms; /* [N], [M] */
    const real *zq;          /* [N, width] */
};

static void init(struct quantizer *q, struct params *params, const struct config *config) {
    struct factorized *own = q->own = calloc(1, sizeof *own);
    if (!own) FATAL("out of memory");
    q->width = config->quantizer.width ? config->quantizer.width : config->moe.experts;
    int64_t down[] = {q->width, q->d_model}, up[] = {q->d_model, q->width};
    quantizer_add_codes(q, params, config, PLACE_REPLICATED);
    own->down = params_add(params, q->layer, "quantizer.down", PLACE_REPLICATED, INITIAL_WEIGHT, 2, down);
    own->up = params_add(params, q->layer, "quantizer.up", PLACE_REPLICATED, INITIAL_WEIGHT, 2, up);
}

static void prepare(struct quantizer *q, const struct pass *pass, const real *x, int64_t N) {
    struct factorized *own = q->own;
    real *z = ARENA_ARRAY(pass->arena, real, N * q->width);
    ops->linear_exact_forward(z, x, own->down->data, NULL, N, q->width, q->d_model);
    q->z = quantizer_normalize(pass, &own->z_norms, z, N, q->width);
    q->v = quantizer_normalize(pass, &own->v_norms, q->table->data, q->M, q->width);
}

static real *lift(struct quantizer *q, const struct pass *pass, const real *zq, int64_t N) {
    struct factorized *own = q->own;
    real *xq = ARENA_ARRAY(pass->arena, real, N * q->d_model);
    own->zq = zq;
    ops->linear_exact_forward(xq, zq, own->up->data, NULL, N, q->d_model, q->width);
    return xq;
}

static real *lift_backward(struct quantizer *q, const struct pass *pass, const real *dxq, int64_t N) {
    struct factorized *own = q->own;
    real *dzq = ARENA_ARRAY(pass->arena, real, N * q->width);
    ops->linear_exact_backward(dzq, false, own->up->grad, NULL, dxq, own->zq, own->up->data, N, q->d_model, q->width);
    return dzq;
}

static void backward(struct quantizer *q, const struct pass *pass, real *dx, const real *dz, const real *dv,
                     const real *x, int64_t N) {
    struct factorized *own = q->own;
    real *dfeature = ARENA_ARRAY(pass->arena, real, N * q->width);
    ops->fill(dfeature, 0, N * q->width);
    ops->normalize_rows_backward(dfeature, dz, q->z, own->z_norms, quantizer_norm_floor, N, q->width);
    ops->normalize_rows_backward(q->table->grad, dv, q->v, own->v_norms, quantizer_norm_floor, q->M, q->width);
    ops->linear_exact_backward(dx, true, own->down->grad, NULL, dfeature, x, own->down->data, N, q->width, q->d_model);
}

const struct quantizer_kind quantizer_factorized = {
    .name = "factorized",
    .full_only = true,
    .codes_lose = 1,
    .init = init,
    .prepare = prepare,
    .lift = lift,
    .lift_backward = lift_backward,
    .backward = backward,
};
