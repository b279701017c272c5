/* The parameter table: the one list of everything a checkpoint must hold. Initialisation, gradient reduction, clipping,
 * optimizer, checkpoint and `inspect` walk it; there is no second list.
 *
 * Values, gradients and both moments are four vectors of the same layout: replicated parameters first, then those
 * sharded over experts, then those over the vocabulary, so that what is reduced over the same ranks is one range. State
 * comes last and has values alone.
 * Each begins at a multiple of 64 elements, for vector access; what lies between is 0 and stays 0. */
#ifndef VQMOE_PARAMS_H
#define VQMOE_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/real.h"

enum placement {
    PLACE_REPLICATED, /* every rank holds it; gradients are summed over all ranks */
    PLACE_EXPERT,     /* axis 0 is experts: a rank holds its block of them */
    PLACE_VOCABULARY, /* axis 0 is cut over the world: each row is held by one rank, and its gradient is whole there */
    PLACE_STATE,      /* every rank holds it and changes it alike, if at all; no gradient, no moments */
    PLACEMENTS
};

/* Initial values, a function of (seed, name, global index) alone. */
enum initial_kind { INITIAL_CONSTANT, INITIAL_NORMAL, INITIAL_UNIFORM, INITIAL_ORTHOGONAL };
struct initial {
    enum initial_kind kind;
    double a, b; /* constant: value; normal: mean, std; uniform: low, high; orthogonal: gain */
};
#define INITIAL_ZERO ((struct initial){INITIAL_CONSTANT, 0, 0})
#define INITIAL_WEIGHT ((struct initial){INITIAL_NORMAL, 0, 0.02}) /* docs/method.md, Initial values */

enum { PARAM_NAME = 64, PARAM_RANK = 4, PARAM_ALIGN = 64 };

struct param {
    char name[PARAM_NAME];
    int rank;
    int64_t shape[PARAM_RANK]; /* global */
    enum placement placement;
    struct initial initial;
    int64_t first, count; /* rows of axis 0 held here */
    int64_t size;         /* elements held here */
    int64_t offset;       /* of the first in the four vectors */
    real *data, *grad;    /* [count, shape[1], ...], device memory inside the vectors; state has no grad */
    bool still;           /* the optimizer leaves it alone (a stage of training that is over) */
};

/* Numbers of an update: squares of the gradient (replicated, experts, vocabulary), scale, norm. */
enum { UPDATE_SQUARES, UPDATE_SCALE = 3, UPDATE_NORM, UPDATE };

struct params {
    struct param **list; /* [count], in order of creation */
    int count;
    int64_t experts_first, experts_count; /* this rank's block */
    int64_t rank, ranks;                  /* of the world, for what is cut over it; ranks 0: nothing may be */
    int64_t replicated, with_experts, trained, total; /* ends: replicated, experts, vocabulary, state */
    real *data;                                       /* [total], device memory, as what follows */
    real *grad, *m, *v;                               /* [trained] each; Adam's moments m and v start at 0 */
    double *update;                                   /* [UPDATE] device memory, the optimizer's */
};

/* Before params_allocate. layer < 0: the name as it is, else "layer.LAYER.NAME". The table owns the result. */
struct param *params_add(struct params *params, int layer, const char *name, enum placement placement,
                         struct initial initial, int rank, const int64_t *shape);
/* Lays out the vectors; moments only where they are wanted (training). */
void params_allocate(struct params *params, int with_moments);
void params_initialise(struct params *params, uint64_t seed);
/* Elements of all that is trained, over all ranks, each expert once. */
int64_t params_global_size(const struct params *params);
/* Elements of all that is held here. */
int64_t params_local_size(const struct params *params);
/* A hash of the bits of all that every rank holds, replicated parameters and state: the same on every rank, or else a
 * rank has gone astray. */
uint64_t params_hash(const struct params *params);
void params_free(struct params *params);

#endif
