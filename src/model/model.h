/* The language model: Transformer-XL (relative attention, memory) or Transformer (absolute), embeddings, softmax over V
 * symbols. Or the classifier: the same blocks on ragged rows without memory, and a head in place of the softmax.
 * docs/method.md, sections 4 and 7. */
#ifndef VQMOE_MODEL_H
#define VQMOE_MODEL_H

#include "model/block.h"
#include "model/softmax.h"
#include "nn/head.h"
#include "nn/ragged.h"

/* Inputs of every layer at the last positions, by batch row: [layers, rows, capacity, d] in device memory, the first
 * `length` positions filled, oldest first. No gradient. A trainer owns one, each evaluation another. */
struct memory {
    int64_t layers, rows, capacity, d_model, length;
    real *data;
};
void memory_init(struct memory *memory, int64_t layers, int64_t rows, int64_t capacity, int64_t d_model);
/* After a step over all rows: `positions` more are filled. */
void memory_advance(struct memory *memory, int64_t positions);
void memory_free(struct memory *memory);

struct model {
    const struct config *config;
    int64_t V, d_model, layers, E; /* E 0: no experts (router.kind: dense) */
    struct params params;
    struct embedding embedding;
    struct softmax softmax;        /* of a language model */
    struct head head;              /* of a classifier; head.classes 0: there is none */
    struct param *bias_w, *bias_r; /* [H, D]; NULL where absolute */
    struct block *blocks;          /* [layers] */
    struct comm *world, *group;    /* group: expert-parallel, made from world, owned */
    struct comm *replicas;         /* ranks of the other groups that hold the same experts, owned */
    struct comm *owners;           /* the world where the vocabulary is cut over it, else NULL; owned */

    const real *embedded; /* [N, d] in the pass's arena: device memory, as what follows */
    real *hidden;         /* [N, d] after dropout */
};

/* What one micro-batch adds to the step's losses; this rank's part, in nats per token of the global batch (a
 * classifier's task: per example). */
struct model_loss {
    double task, vq, balance, distill; /* sums over layers but for task; vq and balance before alpha and lambda */
};

/* classes: of a classifier (model.kind), whose V counts the appended symbol too; else 0. config must outlive the model.
 * Collective over world. STATUS_CONFIG: more ranks than experts, a group size that does
 * not divide the world. */
enum status model_init(struct model *model, const struct config *config, int64_t V, int64_t classes, struct comm *world,
                       bool with_moments);
void model_free(struct model *model);
/* A fresh model: initial values of parameters and state, from run.seed. */
void model_start(struct model *model);

/* The symbols are pass->ids and ids_host; targets the host's: [N] symbols, or of a classifier, whose pass is ragged,
 * labels [B], with pass->shares their parts in the mean. NULL: no loss; a classifier's logits are head.logits. In
 * training the gradients of the softmax are added already here. memory: rows memory_row .. of it are this
 * micro-batch's; they get the new values, the caller advances. Collective over the group (and the world, while training
 * or where the vocabulary is cut). Takes pass->sums. */
void model_forward(struct model *model, struct pass *pass, struct routes *routes, struct memory *memory,
                   int64_t memory_row, const int32_t *targets);
/* What the forward left of losses; waits for the device, so best after the backward is queued. */
struct model_loss model_loss(const struct model *model, const struct pass *pass);
/* Adds to every gradient. reduce: this is the last micro-batch, and gradients are
 * summed over the ranks that hold the same values: those of a layer while the ones below still go backward. Collective
 * over the group, and where it reduces over the world. */
void model_backward(struct model *model, const struct pass *pass, bool reduce);

/* After the update of step `step`: what no gradient moves. Collective over the world. In a build with assertions every
 * rank's parameters and state are then compared. */
void model_after_step(struct model *model, int64_t step);

/* The first layer whose output has a value that is not finite: -1 for the embeddings, `layers` for the losses, layers +
 * 1 for none. */
int64_t model_first_not_finite(const struct model *model, const struct pass *pass);

#endif
