/* Token-choice routers of the continuous path. A router is one table of functions in a file of its own that turns x
 * into scores, and one word in the list at the end; choosing, room, weighing and balancing are the same for all and
 * live there. docs/method.md, section 3; docs/adding-a-router.md. */
#ifndef VQMOE_ROUTER_H
#define VQMOE_ROUTER_H

#include "comm/comm.h"
#include "config/config.h"
#include "moe/routes.h"
#include "nn/params.h"
#include "nn/pass.h"

struct router;

/* What else but the routed experts works on every token, on its own rank. */
enum router_ffn {
    FFN_NONE,
    FFN_SHARED, /* a shared expert, weighted 1 - p of the routed one (k is 1) */
    FFN_ONLY,   /* no experts at all: mode `continuous` only */
};

struct router_kind {
    const char *name; /* router.kind; first, see kind.h */
    double tau;       /* temperature of the balance loss; 0: the kind has none */
    enum router_ffn ffn;
    bool one; /* k is 1 and the weight is given: another top_k is an error, router.normalize is ignored */
    /* Adds its parameters and its state to the table. */
    void (*init)(struct router *router, struct params *params, const struct config *config);
    /* Experts of a token in step `step` (outside of training: after as many updates); NULL: router.top_k. At most K_max
     * of struct router, which init may raise. */
    int64_t (*choices)(const struct router *router, int64_t step);
    /* scores [N, E] from x [N, d]. May set `choose`, `idle` and `balances` of this pass. */
    void (*forward)(struct router *router, const struct pass *pass, real *scores, const real *x, int64_t N);
    /* While training, once the experts are chosen; may leave SUM_DISTILL, a sum over this rank's tokens.
     * NULL: nothing. */
    void (*chosen)(struct router *router, const struct pass *pass, int64_t N);
    /* dx [N, d] adds; gradients of its parameters add; NULL: nothing learns */
    void (*backward)(struct router *router, const struct pass *pass, real *dx, const real *dscores, const real *x,
                     int64_t N);
    /* Frees what `own` points to, not itself; NULL: nothing. */
    void (*free)(struct router *router);
    /* After the update of step `step`: changes state, alike on every rank. Collective over the world. NULL: nothing. */
    void (*after_step)(struct router *router, int64_t step);
};

struct router {
    const struct router_kind *kind;
    int layer;
    int64_t d_model, E, V, K_max;
    bool over_all;   /* weights: softmax over all experts, else over the chosen */
    double balance;  /* lambda */
    double capacity; /* c; 0: every slot has room */
    enum balance_scope balance_scope;
    struct comm *world;
    const struct config *config;
    struct param *weight, *bias; /* [E, d] and [E], as the kind wants them */
    void *own;                   /* of the kind, from calloc or NULL */

    /* Of this pass, in its arena (device memory): kept for the backward. */
    int64_t K;
    bool idle;              /* nobody is routed (a stage before routing) */
    bool balances;          /* there is a balance loss in this pass */
    real *scores, *weights; /* [N, E], [N, K] */
    const real *choose;     /* [N, E] what the choice is made by, where not by the scores; else NULL */
    int32_t *experts;       /* [N, K] the choices */
    int32_t *routed;        /* [N, K] the same, -1 where there was no room */
    const int32_t *seen;    /* host [N, K] the choices, once the device has come past them */
    double *coefficient;    /* [E] E f_e */
};

/* The kind of that name; NULL, and STATUS_CONFIG's message, where there is none. */
const struct router_kind *router_kind_find(const char *name);
/* STATUS_CONFIG for an unknown kind, and for what a kind cannot do: says which can. V: symbols. */
enum status router_init(struct router *router, struct params *params, const struct config *config, int layer, int64_t V,
                        struct comm *world);
void router_free(struct router *router);
/* Experts of a token in this step. */
int64_t router_choices(const struct router *router, int64_t step);
/* Fills scores, experts, routed, weights. Collective over the world where there is a capacity. */
void router_forward(struct router *router, const struct pass *pass, struct routes *routes, const real *x, int64_t N);
/* After it, at leisure: while training SUM_BALANCE, of this micro-batch, or of this rank's share where balance_scope is
 * rank, and what the kind itself adds. Collective over the world while training. */
void router_losses(struct router *router, const struct pass *pass, int64_t N);
/* From dweights [N, K], and the router's own losses; dx [N, d] adds. */
void router_backward(struct router *router, const struct pass *pass, real *dx, const real *dweights, const real *x,
                     int64_t N);

/* What kinds share. scores = x weight^T + bias and back; state learns nothing. */
void router_linear_forward(struct router *router, const struct pass *pass, real *scores, const real *x, int64_t N);
void router_linear_backward(struct router *router, const struct pass *pass, real *dx, const real *dscores,
                            const real *x, int64_t N);
/* scores [N, E] = x [N, D] . m_e / max(norm(m_e), 1e-4), m the router's weight [E, D]. */
struct router_cosine {
    real *unit, *norms; /* [E, D], [E], kept for the backward */
};
void router_cosine_forward(struct router *router, const struct pass *pass, struct router_cosine *cosine, real *scores,
                           const real *x, int64_t N, int64_t D);
/* dx adds where add, else is overwritten */
void router_cosine_backward(struct router *router, const struct pass *pass, const struct router_cosine *cosine,
                            bool add, real *dx, const real *dscores, const real *x, int64_t N, int64_t D);

/* All there are: NAME stands for `const struct router_kind router_NAME` in router_NAME.c. */
#define ROUTER_KINDS(X) X(smoe) X(stablemoe) X(xmoe) X(smoe_dropout) X(hash) X(cluster) X(dense)

#define ROUTER_DECLARE(name) extern const struct router_kind router_##name;
ROUTER_KINDS(ROUTER_DECLARE)
extern const struct router_kind *const router_kinds[];
extern const int router_n_kinds;

#endif
