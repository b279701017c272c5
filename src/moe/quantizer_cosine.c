/* Features and codes on the unit sphere: z = x / |x|, v = v / |v|, in L_vq too; gradients pass through both norms. */
#include <stdlib.h>

#include "base/log.h"
#include "moe/quantizer.h"

struct cosine {
    real *x_norms, *v_norms; /* [N], [M] */
};

static void init(struct quantizer *q, struct params *params, const struct config *config) {
    if (!(q->own = calloc(1, sizeof(struct cosine)))) FATAL("out of memory");
    quantizer_add_codes(q, params, config, PLACE_REPLICATED);
}

static void prepare(struct quantizer *q, const struct pass *pass, const real *x, int64_t N) {
    struct cosine *own = q->own;
    q->z = quantizer_normalize(pass, &own->x_norms, x, N, q->width);
    q->v = quantizer_normalize(pass, &own->v_norms, q->table->data, q->M, q->width);
}

static void backward(struct quantizer *q, const struct pass *pass, real *dx, const real *dz, const real *dv,
                     const real *x, int64_t N) {
    (void)pass, (void)x;
    struct cosine *own = q->own;
    ops->normalize_rows_backward(dx, dz, q->z, own->x_norms, quantizer_norm_floor, N, q->width);
    ops->normalize_rows_backward(q->table->grad, dv, q->v, own->v_norms, quantizer_norm_floor, q->M, q->width);
}

const struct quantizer_kind quantizer_cosine = {
    .name = "cosine",
    .full_only = true,
    .codes_lose = 1,
    .init = init,
    .prepare = prepare,
    .backward = backward,
};
