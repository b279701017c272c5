/* The attention sublayer: projections around ops->attention_*. Transformer-XL (arXiv 1901.02860) where it is relative.
 */
#ifndef VQMOE_ATTENTION_H
#define VQMOE_ATTENTION_H

#include "nn/params.h"
#include "nn/pass.h"

struct attention {
    int layer;
    int64_t d_model, heads, d_head;
    struct param *query, *key, *value, *output; /* [H D, d], output [d, H D] */
    struct param *position;                     /* [H D, d]; NULL where absolute */
    struct param *bias_w, *bias_r;              /* [H, D], shared by all layers; NULL where absolute */

    /* Kept for the backward, in the pass's arena. */
    const real *in, *context, *sinusoids;
    const real *q, *k, *v, *packed; /* packed: mixed without padding */
    real *r, *lse, *mixed;
    int64_t S;
};

void attention_init(struct attention *attention, struct params *params, int layer, int64_t d_model, int64_t heads,
                    int64_t d_head, struct param *bias_w, struct param *bias_r);
/* out [B, T, d] from in [B, T, d] (queries) and context [B, S, d] (keys and values: memory, then in itself), or of
 * ragged rows all three [N, d]; S is T then. sinusoids [S, d], the farthest distance first; NULL where absolute. All
 * inputs live until the backward; out is in the arena. */
real *attention_forward(struct attention *attention, const struct pass *pass, const real *in, const real *context,
                        const real *sinusoids, int64_t S);
/* din [B, T, d] overwritten: from the queries. dcontext [B, wanted, d] ADDS: the last `wanted` positions of each row (T
 * where memory gets no gradient, S where a norm before the projections needs it). */
void attention_backward(struct attention *attention, const struct pass *pass, real *din, real *dcontext, int64_t wanted,
                        const real *dout);

#endif
