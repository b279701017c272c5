/* Symbols to rows: x [N, d] = sqrt(d) table[symbol]. The tables are those of the clusters where embedding and softmax
 * are one (model.tied), else one of all symbols; whole on every rank, or cut over the ranks (parallel.vocabulary).
 *
 * Cut, or in several tables, a pass looks each of its different symbols up once: every rank learns everybody's symbols
 * and sends the rows of its own that were asked for. The backward sums gradients by symbol and sends back those rows
 * alone, which their owner adds in the order of the ranks. */
#ifndef VQMOE_EMBEDDING_H
#define VQMOE_EMBEDDING_H

#include "model/clusters.h"
#include "model/turns.h"

/* What one pass looks up. Rows asked of this rank are ordered by cluster, then by who asks, then by symbol. */
struct lookup {
    int64_t unique;                   /* different symbols of this rank's tokens */
    const int32_t *inverse;           /* [N] which of them a token is */
    const int32_t *asked;             /* rows of the tables, as they lie here */
    int64_t of_cluster[CLUSTERS + 1]; /* those of cluster c: of_cluster[c] .. of_cluster[c + 1] - 1 */
    struct comm_blocks leave, arrive; /* rows asked of this rank; rows that it asked for */
};

struct embedding {
    struct clusters clusters;
    struct param *weight[CLUSTERS]; /* [rows, d] */
    int64_t d_model;
    struct comm *owners;  /* NULL: every rank has all rows */
    struct lookup lookup; /* kept for the backward */
};

/* Adds its parameters: "embedding.weight", "embedding.tail_1.weight", ... STATUS_CONFIG: model.cutoffs. owners must
 * outlive it. */
enum status embedding_init(struct embedding *embedding, struct params *params, const struct config *config, int64_t V,
                           struct comm *owners);
/* Returns [N, d] in the arena (the caller may change it), of pass->ids and pass->ids_host. Both collective over the
 * owners. */
real *embedding_forward(struct embedding *embedding, const struct pass *pass);
/* dx [N, d]; adds to the tables' gradients. */
void embedding_backward(const struct embedding *embedding, const struct pass *pass, const real *dx);

#endif
