/* Layer norm: a pair of parameters, which several places may share, and what one use of it keeps for its backward. */
#ifndef VQMOE_NORM_H
#define VQMOE_NORM_H

#include "nn/params.h"
#include "nn/pass.h"

struct norm {
    struct param *weight, *bias; /* [D] */
};

struct norm_use {
    const real *in; /* [N, D] */
    real *stats;    /* [N, 2] */
    int64_t N;
};

struct norm norm_add(struct params *params, int layer, const char *name, int64_t D);
/* out [N, D], in the pass's arena; `in` must live until the backward. */
real *norm_forward(const struct norm *norm, struct norm_use *use, const struct pass *pass, const real *in, int64_t N);
/* din [N, D] overwritten; may be dout */
void norm_backward(const struct norm *norm, const struct norm_use *use, const struct pass *pass, real *din,
                   const real *dout);

#endif
