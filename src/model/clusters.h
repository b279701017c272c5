/* The vocabulary in clusters (docs/method.md, section 4). Full softmax: one, the head, of all symbols. Adaptive: the
 * head has the symbols before the first cutoff, a tail those from one cutoff up to the next. A cluster has a matrix
 * with a row per symbol; the head's has a further row per tail, that tail's cluster vector. */
#ifndef VQMOE_CLUSTERS_H
#define VQMOE_CLUSTERS_H

#include "config/config.h"
#include "nn/params.h"

enum { CLUSTERS = 9 };

struct clusters {
    int count;                   /* head and tails */
    int64_t first[CLUSTERS + 1]; /* cluster c: symbols first[c] .. first[c + 1] - 1 */
};

/* Of V symbols. STATUS_CONFIG: model.cutoffs do not rise, or not below V, or are too many. */
enum status clusters_init(struct clusters *clusters, const struct config *config, int64_t V);

/* Rows of the cluster's matrix: row i is symbol first[c] + i; in the head row first[1] + t - 1 is tail t's vector. */
static inline int64_t clusters_rows(const struct clusters *clusters, int c) {
    return clusters->first[c + 1] - clusters->first[c] + (c ? 0 : clusters->count - 1);
}

static inline int clusters_of(const struct clusters *clusters, int64_t symbol) {
    int c = 0;
    while (symbol >= clusters->first[c + 1]) ++c;
    return c;
}

/* parameter [clusters]: weights [rows, d] named "OWNER.weight", "OWNER.tail_1.weight", ..., or biases [rows] named
 * "OWNER.bias", ... sharded: a rank of the world holds a block of each one's rows. */
void clusters_add_weights(const struct clusters *clusters, struct param **parameter, struct params *params,
                          const char *owner, bool sharded, int64_t d);
void clusters_add_biases(const struct clusters *clusters, struct param **parameter, struct params *params,
                         const char *owner, bool sharded);

#endif
