/* One Transformer block: attention with memory, then the MoE layer, post-norm or pre-norm (docs/method.md, section 4).
 */
#ifndef VQMOE_BLOCK_LAYER_H
#define VQMOE_BLOCK_LAYER_H

#include "moe/moe.h"
#include "nn/attention.h"
#include "nn/norm.h"

struct block {
    int layer;
    enum norm_kind norm;
    int64_t d_model;
    int params_first; /* of the table: its own and what follows up to the next block's */
    struct attention attention;
    struct norm attention_norm, moe_norm;
    struct moe moe;

    struct norm_use attention_use, moe_use; /* kept for the backward */
    int64_t memory_length;
    const real *out; /* [N, d], for the search of the first value that is not finite */
};

enum status block_init(struct block *block, struct params *params, const struct config *config, int layer, int64_t V,
                       struct param *bias_w, struct param *bias_r, struct comm *world, struct comm *group);
/* Returns [N, d] in the arena. x [B, T, d]; memory [B, capacity, d] of which the first `length` positions of a row are
 * filled, oldest first; sinusoids [length + T, d], NULL where absolute. Collective over the group (and the world, while
 * training). */
const real *block_forward(struct block *block, const struct pass *pass, struct routes *routes, const real *x,
                          const real *memory, int64_t capacity, int64_t length, const real *sinusoids);
/* dx [N, d] overwritten. Collective over the group. */
void block_backward(struct block *block, const struct pass *pass, real *dx, const real *dout);

#endif
