/* Quantizers of the discrete path: a token finds its code, the code points at its expert, e = k mod E. A quantizer is
 * one table of functions in a file of its own and one word in the list at the end; finding the code, the quantized
 * input and L_vq are the same for all and live there. docs/method.md, section 2. */
#ifndef VQMOE_QUANTIZER_H
#define VQMOE_QUANTIZER_H

#include "comm/comm.h"
#include "config/config.h"
#include "moe/routes.h"
#include "nn/params.h"
#include "nn/pass.h"

struct quantizer;

struct quantizer_kind {
    const char *name;  /* quantizer.kind; first, see kind.h */
    bool full_only;    /* `blend` has no meaning: features do not live where x does */
    double codes_lose; /* weight of the first term of L_vq: 1, or 0 where no gradient moves the codes */
    /* Adds its parameters and its state to the table; sets `width` where it is not d. */
    void (*init)(struct quantizer *quantizer, struct params *params, const struct config *config);
    /* In a fresh model, once the initial values are there; NULL: nothing. */
    void (*start)(struct quantizer *quantizer);
    /* Sets v, z and, where the choice is by others than these, key_v and key_z. NULL: the table and x. */
    void (*prepare)(struct quantizer *quantizer, const struct pass *pass, const real *x, int64_t N);
    /* xq [N, d], in the arena, from the quantized feature zq [N, width], and back: dzq. NULL: the same. */
    real *(*lift)(struct quantizer *quantizer, const struct pass *pass, const real *zq, int64_t N);
    real *(*lift_backward)(struct quantizer *quantizer, const struct pass *pass, const real *dxq, int64_t N);
    /* From dz [N, width] and dv [M, width]: dx adds, parameters' gradients add. NULL: they are dx and the table's. */
    void (*backward)(struct quantizer *quantizer, const struct pass *pass, real *dx, const real *dz, const real *dv,
                     const real *x, int64_t N);
    /* While training, after the choice: notes what after_step wants; scores as nearest_code left them. NULL: nothing.
     */
    void (*collect)(struct quantizer *quantizer, const struct pass *pass, const real *scores, const real *x, int64_t N);
    /* After the update of step `step`: moves state and codes, alike on every rank. Collective over the world. */
    void (*after_step)(struct quantizer *quantizer, int64_t step);
    void (*free)(struct quantizer *quantizer); /* what `own` points to, not itself; NULL: nothing */
};

struct quantizer {
    const struct quantizer_kind *kind;
    int layer;
    int64_t d_model, width, M;
    enum straight_through straight_through;
    double contribution, alpha, beta, decay;
    uint64_t seed;
    struct comm *world;
    struct param *table; /* [M, width] the codes; trained, or state */
    void *own;           /* of the kind, from calloc or NULL */

    /* Of this pass, in its arena (device memory): kept for the backward. */
    const real *v, *z;         /* [M, width] codes in use, [N, width] features */
    const real *key_v, *key_z; /* the same, for the choice */
    int32_t *codes;            /* [N] */
    const int32_t *seen;       /* host [N] the codes, once the device has come past them */
};

/* STATUS_CONFIG for an unknown kind, and for `blend` where it has no meaning: says which there are. */
enum status quantizer_init(struct quantizer *quantizer, struct params *params, const struct config *config, int layer,
                           struct comm *world);
void quantizer_free(struct quantizer *quantizer);
/* Returns xq [N, d] in the arena; while training SUM_VQ: this rank's sum of squared errors. */
real *quantizer_forward(struct quantizer *quantizer, const struct pass *pass, struct routes *routes, const real *x,
                        int64_t N);
/* dx [N, d] adds: from dxq through the straight-through estimator, and from L_vq; parameters' gradients add. */
void quantizer_backward(struct quantizer *quantizer, const struct pass *pass, real *dx, const real *dxq, const real *x,
                        int64_t N);

/* What kinds share: the table [M, width] as quantizer.init says, trained or state. */
void quantizer_add_codes(struct quantizer *quantizer, struct params *params, const struct config *config,
                         enum placement placement);
/* out [N, D] = in / max(norm, 1e-12), in the arena; norms [N] too, for the backward */
real *quantizer_normalize(const struct pass *pass, real **norms, const real *in, int64_t N, int64_t D);
extern const double quantizer_norm_floor;

/* Codes move by a rule of their kind after each step: not with alpha 0, which freezes those of every kind. */
bool quantizer_moves(const struct quantizer *quantizer);

/* What L_vq is, this rank's part and before alpha, from SUM_VQ. */
double quantizer_loss(const struct quantizer *quantizer, const struct pass *pass, double sum);

/* All there are: NAME stands for `const struct quantizer_kind quantizer_NAME` in quantizer_NAME.c. */
#define QUANTIZER_KINDS(X) X(vq) X(cosine) X(factorized) X(ema) X(frozen_linear) X(online_clustered)

#define QUANTIZER_DECLARE(name) extern const struct quantizer_kind quantizer_##name;
QUANTIZER_KINDS(QUANTIZER_DECLARE)
extern const struct quantizer_kind *const quantizer_kinds[];
extern const int quantizer_n_kinds;

#endif
