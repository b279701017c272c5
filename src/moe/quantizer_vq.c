/* The plain codebook (arXiv 1711.00937): nearest code by squared distance, gradient of L_vq, straight-through `full` or
 * `blend`. */
#include "moe/quantizer.h"

static void init(struct quantizer *q, struct params *params, const struct config *config) {
    int64_t shape[] = {q->M, q->d_model};
    double edge = 1 / (double)q->M;
    struct initial uniform = {INITIAL_UNIFORM, -edge, edge};
    q->table = params_add(params, q->layer, "quantizer.codes", PLACE_REPLICATED,
                          config->quantizer.init == CODE_UNIFORM ? uniform : INITIAL_WEIGHT, 2, shape);
}

static void assign(struct quantizer *q, const struct pass *pass, int32_t *codes, real *scores, const real *x,
                   int64_t N) {
    (void)pass;
    ops->nearest_code(codes, scores, x, q->table->data, N, q->M, q->d_model);
}

/* full: the code itself; blend: (1 - c) x + c (v - x), the published odd form. */
static double forward(struct quantizer *q, const struct pass *pass, real *xq, const real *x, int64_t N) {
    bool full = q->straight_through == STRAIGHT_FULL;
    ops->quantize(xq, x, q->table->data, q->codes, full ? 0 : 1 - 2 * q->contribution, full ? 1 : q->contribution, N,
                  q->d_model);
    return pass->train ? ops->code_error(x, q->table->data, q->codes, N, q->d_model) : 0;
}

static void backward(struct quantizer *q, const struct pass *pass, real *dx, const real *dxq, const real *x,
                     int64_t N) {
    double through = q->straight_through == STRAIGHT_FULL ? 1 : 1 - q->contribution;
    double scale = 2 * q->alpha / (double)(pass->tokens_global * q->d_model);
    ops->add_scaled(dx, dxq, through, N * q->d_model);
    ops->code_error_backward(dx, q->table->grad, x, q->table->data, q->codes, q->beta * scale, scale, N, q->d_model);
}

const struct quantizer_kind quantizer_vq = {"vq", init, assign, forward, backward};
