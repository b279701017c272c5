/* Token-choice routers of the continuous path. A router is one table of functions in a file of its own that turns x
 * into scores, and one line in the list of router.c; choosing, weighing and balancing are the same for all and live
 * there. docs/method.md, section 3. */
#ifndef VQMOE_ROUTER_H
#define VQMOE_ROUTER_H

#include "comm/comm.h"
#include "config/config.h"
#include "moe/routes.h"
#include "nn/params.h"
#include "nn/pass.h"

struct router;

struct router_kind {
    const char *name; /* router.kind; first, see kind.h */
    double tau;       /* temperature of the balance loss */
    /* Adds its parameters to the table. */
    void (*init)(struct router *router, struct params *params);
    /* scores [N, E] from x [N, d] */
    void (*forward)(struct router *router, const struct pass *pass, real *scores, const real *x, int64_t N);
    /* dx [N, d] adds; gradients of its parameters add */
    void (*backward)(struct router *router, const struct pass *pass, real *dx, const real *dscores, const real *x,
                     int64_t N);
};

struct router {
    const struct router_kind *kind;
    int layer;
    int64_t d_model, E, K;
    bool over_all;  /* normalize: all */
    double balance; /* lambda */
    enum balance_scope balance_scope;
    struct comm *world;
    struct param *weight, *bias; /* [E, d] and [E], as the kind wants them */

    /* Kept for the backward, in the pass's arena. */
    real *unit, *norms;     /* [E, d], [E]: stablemoe's normalised embeddings */
    real *scores, *weights; /* [N, E], [N, K] */
    int32_t *experts;       /* [N, K] */
    double *coefficient;    /* [E] E f_e */
    double balance_loss;    /* of this micro-batch: of this rank's share where balance_scope is rank */
};

/* STATUS_CONFIG for an unknown kind: names those there are. */
enum status router_init(struct router *router, struct params *params, const struct config *config, int layer,
                        struct comm *world);
/* Fills scores, experts, weights; the balance loss while training. Collective over the world while training. */
void router_forward(struct router *router, const struct pass *pass, struct routes *routes, const real *x, int64_t N);
/* From dweights [N, K], and the balance loss's own gradient; dx [N, d] adds. */
void router_backward(struct router *router, const struct pass *pass, real *dx, const real *dweights, const real *x,
                     int64_t N);

extern const struct router_kind router_smoe, router_stablemoe;

#endif
