/* The VQMoE layer (docs/method.md, section 1): y = g_0 y_c + g_1 y_d, two paths over the same experts. In mode
 * `continuous` it is the sparse mixture of every baseline, in mode `discrete` the path of fine-tuning and inference. */
#ifndef VQMOE_MOE_H
#define VQMOE_MOE_H

#include "comm/comm.h"
#include "config/config.h"
#include "moe/experts.h"
#include "moe/plan.h"
#include "moe/quantizer.h"
#include "moe/router.h"
#include "nn/norm.h"

/* One way of a token through the experts, kept for its backward. */
struct moe_path {
    struct plan plan;
    struct experts_use use;
    const real *returned; /* [slots, d] the experts' outputs in send order */
};

struct moe {
    enum moe_mode mode;
    int layer;
    int64_t d_model, E;
    bool discrete_norm;
    struct comm *group; /* expert-parallel */
    struct experts experts;
    struct router router;
    struct quantizer quantizer;
    struct norm input_norm, output_norm; /* of the discrete path; the block's own where share_norm */
    struct param *mix_weight, *mix_bias; /* W_g [2, d], b_g [2]; joint only */

    const real *x; /* [N, d] the layer's input, and what follows: kept for the backward */
    struct moe_path continuous, discrete;
    struct norm_use input_use, output_use;
    real *gates;           /* [N, 2] */
    const real *y_c, *y_d; /* [N, d] */
};

/* block_norm: the block's MoE norm, used where share_norm. */
enum status moe_init(struct moe *moe, struct params *params, const struct config *config, int layer,
                     struct norm block_norm, struct comm *world, struct comm *group);
/* Collective over group (and world, while training). y [N, d] in the arena; x must live until the backward. */
real *moe_forward(struct moe *moe, const struct pass *pass, struct routes *routes, const real *x);
/* Collective over group. dx [N, d] overwritten; includes the gradients of the layer's own losses, alpha L_vq and lambda
 * L_balance. */
void moe_backward(struct moe *moe, const struct pass *pass, real *dx, const real *dy);

/* Choices of the last forward on this rank, added up: load [E] rows per expert over both paths, usage [M] tokens per
 * code (NULL where the layer has no codes), hash of all choices. */
void moe_count(const struct moe *moe, const struct pass *pass, double *load, double *usage, uint64_t *hash);

#endif
