/* Quantizers of the discrete path: a token finds its code, the code points at its expert, e = k mod E. A quantizer is
 * one table of functions in a file of its own and one line in the list of quantizer.c. docs/method.md, section 2. */
#ifndef VQMOE_QUANTIZER_H
#define VQMOE_QUANTIZER_H

#include "config/config.h"
#include "moe/routes.h"
#include "nn/params.h"
#include "nn/pass.h"

struct quantizer;

struct quantizer_kind {
    const char *name; /* quantizer.kind; first, see kind.h */
    void (*init)(struct quantizer *quantizer, struct params *params, const struct config *config);
    /* codes [N] and scores [N, M] (the smallest is chosen) from x [N, d] */
    void (*assign)(struct quantizer *quantizer, const struct pass *pass, int32_t *codes, real *scores, const real *x,
                   int64_t N);
    /* xq [N, d]; returns the local sum of squared errors that L_vq is the mean of */
    double (*forward)(struct quantizer *quantizer, const struct pass *pass, real *xq, const real *x, int64_t N);
    /* dx [N, d] adds: from dxq (through the straight-through estimator) and from L_vq; codes' gradients add */
    void (*backward)(struct quantizer *quantizer, const struct pass *pass, real *dx, const real *dxq, const real *x,
                     int64_t N);
};

struct quantizer {
    const struct quantizer_kind *kind;
    int layer;
    int64_t d_model, M;
    enum straight_through straight_through;
    double contribution, alpha, beta;
    struct param *table; /* [M, d] */

    int32_t *codes; /* [N] kept for the backward, in the pass's arena */
    double vq_loss; /* this rank's part of L_vq, before alpha */
};

/* STATUS_CONFIG for an unknown kind: names those there are. */
enum status quantizer_init(struct quantizer *quantizer, struct params *params, const struct config *config, int layer);
/* Returns xq [N, d] in the arena. */
real *quantizer_forward(struct quantizer *quantizer, const struct pass *pass, struct routes *routes, const real *x,
                        int64_t N);

extern const struct quantizer_kind quantizer_vq;

#endif
