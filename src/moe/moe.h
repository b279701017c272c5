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
    struct flight flight; /* of rows on their way just now */
    struct flight tokens; /* of their numbers, for dropout */
    const real *gathered; /* [slots, d] what is sent */
    const real *returned; /* [sent, d] the experts' outputs in send order */
};

/* The one FFN that every token of this rank takes, kept for its backward. */
struct moe_ffn {
    struct experts_use use;
    int64_t *place;      /* [N] token by token */
    real *out;           /* [N, d] */
    const real *weights; /* [N] 1 - p; NULL: 1 */
};

struct moe {
    enum moe_mode mode;
    int layer;
    int64_t d_model, E; /* E 0: no experts, the FFN alone */
    bool discrete_norm;
    struct comm *group; /* expert-parallel */
    int64_t small_message;
    struct experts experts, ffn;
    struct router router;
    struct quantizer quantizer;
    struct norm input_norm, output_norm; /* of the discrete path; the block's own where share_norm */
    struct param *mix_weight, *mix_bias; /* W_g [2, d], b_g [2]; joint only */

    const real *x; /* [N, d] the layer's input, and what follows: kept for the backward */
    struct moe_path continuous, discrete;
    struct moe_ffn shared;
    struct norm_use input_use, output_use;
    real *gates;           /* [N, 2] */
    const real *y_c, *y_d; /* [N, d] */
};

/* block_norm: the block's MoE norm, used where share_norm. V: symbols. */
enum status moe_init(struct moe *moe, struct params *params, const struct config *config, int layer, int64_t V,
                     struct norm block_norm, struct comm *world, struct comm *group);
void moe_free(struct moe *moe);
/* In a fresh model, once the initial values are there. */
void moe_start(struct moe *moe);
/* Collective over group (and world, while training or with a capacity). y [N, d] in the arena; x must live until the
 * backward. */
real *moe_forward(struct moe *moe, const struct pass *pass, struct routes *routes, const real *x);
/* Collective over group. dx [N, d] overwritten; includes the gradients of the layer's own losses. */
void moe_backward(struct moe *moe, const struct pass *pass, real *dx, const real *dy);
/* After the update of step `step`: what no gradient moves. Collective over the world. */
void moe_after_step(struct moe *moe, int64_t step);

/* Choices of the last forward on this rank, once the device has come past it, added up: load [E] rows per expert over
 * both paths, usage [M] tokens per code (NULL where the layer has no codes), hash of all choices; dropped: slots that
 * found no room, and slots asked for, two numbers. */
void moe_count(const struct moe *moe, const struct pass *pass, double *load, double *usage, double *dropped,
               uint64_t *hash);

#endif
