/* A set of experts, FFN_e(u) = W2_e . relu(W1_e u + b1_e) + b2_e, over expert-major rows: those of this rank, or the
 * one that every rank has for all its tokens. */
#ifndef VQMOE_EXPERTS_H
#define VQMOE_EXPERTS_H

#include "nn/params.h"
#include "nn/pass.h"

struct experts {
    int layer;
    int64_t d_model, d_inner, first, count; /* experts [first, first + count) are here; numbers are dropout's lanes */
    struct param *w1, *b1, *w2, *b2;        /* [E, h, d], [E, h], [E, d, h], [E, d] */
};

/* What one use keeps for its backward. */
struct experts_use {
    const real *in; /* [rows, d] */
    real *hidden;   /* [rows, h] after activation and dropout */
    struct groups groups;
    bool dropout;
};

/* Sharded: this rank's block of E, parameters NAME.w1 and so on. */
void experts_init(struct experts *experts, struct params *params, int layer, int64_t E, int64_t d_model,
                  int64_t d_inner);
/* Replicated: one FFN, NAME.w1 and so on with E = 1, of this number. */
void experts_init_one(struct experts *experts, struct params *params, int layer, const char *name, int64_t number,
                      int64_t d_model, int64_t d_inner);
/* Returns [rows, d] in the arena. tokens [rows]: g of each row, for dropout; NULL: no dropout in this use. */
real *experts_forward(const struct experts *experts, struct experts_use *use, const struct pass *pass, const real *in,
                      struct groups groups, const int64_t *tokens);
/* Returns din [rows, d] in the arena. An expert without rows leaves its gradients as they are. */
real *experts_backward(const struct experts *experts, const struct experts_use *use, const struct pass *pass,
                       const real *dout);

#endif
