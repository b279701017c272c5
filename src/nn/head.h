/* The head of a classifier, on the last position of each row: y = W_o drop(tanh(W_d h + b_d)) + b_o, or y = W_o h + b_o
 * (classifier.head), and its loss: cross-entropy, a weighted mean over the examples of the global batch. */
#ifndef VQMOE_HEAD_H
#define VQMOE_HEAD_H

#include "config/config.h"
#include "nn/params.h"
#include "nn/pass.h"

struct head {
    int64_t d_model, classes;
    struct param *dense_weight, *dense_bias; /* [d, d], [d]; NULL where linear */
    struct param *weight, *bias;             /* [C, d], [C] */

    /* Kept for the backward, in the pass's arena. */
    const real *last, *in;     /* [B, d] last positions; what W_o multiplies */
    real *bent, *logits, *lse; /* [B, d] tanh; [B, C], [B] */
    const int32_t *labels;     /* [B] */
    const real *shares;        /* [B] */
    const int64_t *rows;       /* [B] 0, 1 and so on */
};

void head_init(struct head *head, struct params *params, const struct config *config, int64_t classes);
/* logits [B, C] from hidden [N, d] of ragged rows. */
void head_forward(struct head *head, const struct pass *pass, const real *hidden);
/* Leaves sum over this rank's rows of shares[b] (-log p(labels[b])) in SUM_TASK. shares [B]: w of the example's class
 * over the sum of w of the whole global batch, of all micro-batches and ranks. Both live until the backward. */
void head_loss(struct head *head, const struct pass *pass, const int32_t *labels, const real *shares);
/* dhidden [N, d] overwritten: 0 but for the last positions. */
void head_backward(struct head *head, const struct pass *pass, real *dhidden);

#endif
