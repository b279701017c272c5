/* Hidden rows to scores of symbols: loss, gradient, scores. Logits are never there for the whole batch: loss and
 * gradient are computed together in the forward, for some tokens (a turn) and one cluster at a time. Of adaptive
 * softmax a tail sees only the tokens whose target it has.
 *
 * Room: a turn has so many tokens that the logits of the widest cluster take at most model.logits_mib, at least one of
 * each rank:
 *     tokens = max(1, logits_mib 2^20 / (bytes of a real . ceil(widest / W)) / W) . W,   W owners (1: not cut)
 *
 * Cut over the ranks (parallel.vocabulary) each rank scores the tokens of all ranks against its own rows: hidden rows
 * are gathered, the logs of the sums of exponentials joined in the order of the ranks, and gradients of hidden rows
 * sent back and added in that order; the gradients of weights and biases stay where they are. */
#ifndef VQMOE_SOFTMAX_H
#define VQMOE_SOFTMAX_H

#include "model/embedding.h"

struct softmax {
    struct clusters clusters;
    struct param *weight[CLUSTERS], *bias[CLUSTERS]; /* [rows, d], [rows] */
    int64_t d_model;
    int64_t room; /* tokens of a turn, all ranks together */
    struct comm *owners;

    real *losses; /* [n_losses], of a pass: each token's parts, in the pass's arena as what follows */
    int64_t n_losses;
    real *dhidden; /* [N, d]; NULL outside of training */
};

/* Adds its parameters, but for the weights that are the embedding's (model.tied): "softmax.weight", "softmax.bias",
 * "softmax.tail_1.weight", ... STATUS_CONFIG: model.cutoffs. */
enum status softmax_init(struct softmax *softmax, struct params *params, const struct config *config, int64_t V,
                         const struct embedding *embedding);
/* hidden [N, d]; targets [N] host, which need not outlive the call. Leaves the sum of the losses in SUM_TASK, and in
 * training dhidden; there it adds the gradients of its parameters too. Collective over the owners. */
void softmax_loss(struct softmax *softmax, const struct pass *pass, const real *hidden, const int32_t *targets);
/* out [n, V] host, of hidden [n, d]: logits, of adaptive softmax log-probabilities. n may differ between the ranks.
 * Waits. Collective over the owners. */
void softmax_scores(const struct softmax *softmax, const struct pass *pass, real *out, const real *hidden, int64_t n);

#endif
