/* k-means of the `cluster` router: k-means++ (Arthur and Vassilvitskii 2007), then 20 steps of Lloyd's. */
#ifndef VQMOE_KMEANS_H
#define VQMOE_KMEANS_H

#include <stdint.h>

#include "base/rng.h"

/* centroids [C, D] of samples [N, D], C >= 1, N >= 1. place: draw c is column 0 of row c. Every rank that has the same
 * samples gets the same bits. */
void kmeans(double *centroids, const double *samples, int64_t N, int64_t C, int64_t D, struct rng_place place);

#endif
