/* How the inputs lie that a router sends to different experts, and how evenly experts and codes are used: mathematics
 * on plain arrays. Formulas and sources: docs/diagnostics.md. NAN: not defined for these values. */
#ifndef VQMOE_COLLAPSE_H
#define VQMOE_COLLAPSE_H

#include <stdint.h>

#include "base/real.h"

struct collapse {
    double effective_rank; /* of all inputs: 1 .. min(N - 1, d) */
    double rank_within;    /* of the inputs of one label, mean weighted by tokens; labels without variance left out */
    double cosine_within, cosine_between; /* mean over pairs of the same label, of different ones */
    double variance_ratio;                /* within labels over between them */
};

/* x [N, d]; labels [N] in 0 .. L - 1, N >= 1. */
struct collapse collapse_of(const real *x, const int64_t *labels, int64_t N, int64_t d, int64_t L);
/* exp(entropy) of the normalised eigenvalues of the covariance of x [N, d]. */
double collapse_effective_rank(const double *x, int64_t N, int64_t d);

/* Mutual information in bits of the pairs (a, b) [N], a in 0 .. A - 1, b in 0 .. B - 1. */
double collapse_shared_bits(const int64_t *a, int64_t A, const int64_t *b, int64_t B, int64_t N);
/* Fraction of places where the two differ. */
double collapse_changed(const int64_t *now, const int64_t *before, int64_t N);

/* Of counts [n]: exp(entropy), how many are 0, the largest over the mean, standard deviation over the mean. */
double collapse_perplexity(const double *counts, int64_t n);
double collapse_dead(const double *counts, int64_t n);
double collapse_most(const double *counts, int64_t n);
double collapse_variation(const double *counts, int64_t n);

#endif
