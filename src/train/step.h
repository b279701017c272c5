/* One training step without its data and its update: forward, backward and reduction over micro-batches and ranks. */
#ifndef VQMOE_STEP_H
#define VQMOE_STEP_H

#include "model/model.h"
#include "train/batch.h"

/* The global batch of B rows is cut into `accumulate` contiguous micro-batches, each of these over the ranks. So a
 * micro-batch is the same rows on any number of ranks, and all ranks work on each. This rank's rows, micro-batch by
 * micro-batch, are its local rows. A classifier's batch may have fewer rows than train.batch, and than there are ranks
 * or micro-batches (of which those without a row do not take place). */
struct micro_batch {
    int64_t rows_global; /* over all ranks */
    int64_t first, rows; /* this rank's: number of the first in the global batch, count */
    int64_t local;       /* local row of the first */
    int64_t token_first, tokens,
        token_local; /* the same of its tokens: g of the first, count, local number of the first */
};

/* Sums over ranks, layers in order. */
struct step_stats {
    double task, vq, balance, distill; /* nats per token (a classifier's task: per example); all but task summed over
                                          layers, before alpha and lambda */
    double loss;                       /* task + alpha vq + lambda balance + distill */
    double *dropped;                   /* [layers, 2] slots that found no room, slots routed */
    double *load;                      /* [layers, E] rows per expert, both paths */
    double *usage;                     /* [layers, M] tokens per code */
    uint64_t *hashes;                  /* [layers] of all choices */
    int64_t not_finite; /* -1 .. layers: where the first value that is not finite was seen (model_first_not_finite);
                           else layers + 1 */
};

struct step {
    struct model *model;
    struct pass_memory arenas;
    struct memory memory;
    struct micro_batch *micro; /* [accumulate], of the last step */
    int64_t accumulate;        /* micro-batches */
    int64_t rows, tokens;      /* local ones of all of them */
    int64_t codes;             /* M, 0 without codes */
    struct step_stats stats;   /* of the last step */
    double *packed;            /* [n_packed] the stats as one vector, for one reduction */
    int64_t n_packed;
    struct pass pending; /* the last micro-batch's, until step_collect */
    struct ragged ragged;
    int64_t rows_global, tokens_global; /* of the last step */
    real *class_logits;                 /* classifier: host [rows_global, C] of the last step, on every rank */
    real *keep_logits; /* host [rows T, V] filled by softmax_scores if not NULL (the caller's; on all ranks or none) */
};

void step_init(struct step *step, struct model *model);
void step_free(struct step *step);

/* Gradients of update `number` on tokens, targets [rows, L] (local rows). Memory moves on. Gradients are zeroed first
 * and reduced while they come. It returns with the device still at work; what follows may be queued before
 * step_collect, which waits and fills the stats. Both collective over the world. */
void step_queue(struct step *step, int64_t number, struct routes *routes, const int32_t *tokens,
                const int32_t *targets);
void step_collect(struct step *step);
/* Both. */
void step_gradients(struct step *step, int64_t number, struct routes *routes, const int32_t *tokens,
                    const int32_t *targets);

/* The same for a classifier. */
void step_queue_batch(struct step *step, int64_t number, struct routes *routes, const struct batch *batch);

/* Max over mean of the rows per expert, of the worst layer (0 without experts); the mean over layers of exp(entropy) of
 * the code usage. */
double step_load_ratio(const struct step *step);
double step_code_perplexity(const struct step *step, int64_t layer);

#endif
