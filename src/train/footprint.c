#include "train/footprint.h"

#include <math.h>

/* Reals a token of one path keeps from its forward until its backward: rows sorted, hidden, out; between ranks also
 * those that came and those that returned. Slots: choices per token. order, place and the token numbers are int64. */
static double path_reals(const struct config *config, double slots, bool alone) {
    double d = (double)config->model.d_model, h = (double)config->model.d_inner,
           index = sizeof(int64_t) / (double)sizeof(real);
    return slots * ((alone ? 2 : 4) * d + h + (alone ? 3 : 4) * index);
}

/* What the FFN of every token keeps: in, hidden, out. */
static double ffn_reals(const struct model *model) {
    const struct experts *ffn = &model->blocks[0].moe.ffn;
    return ffn->count ? (double)(ffn->d_inner + ffn->d_model) + 3 : 0;
}

/* Reals a token keeps in one layer. */
static double layer_reals(const struct model *model, bool alone) {
    const struct config *config = model->config;
    double d = (double)config->model.d_model, w = (double)(config->model.heads * config->model.d_head);
    double S = (double)(config->model.memory + config->model.segment) / (double)config->model.segment,
           K = model->E ? (double)model->blocks[0].moe.router.K_max : 0;
    bool pre = config->model.norm == NORM_PRE, remembers = config->model.memory > 0;
    double reals = (remembers ? S * d : 0) +
                   (pre ? S * d + (remembers ? d : 0) : 0);       /* context, its norm, the part of it that asks */
    reals += 2 * w + 2 * S * w + d + (double)config->model.heads; /* q, mixed, k, v, output, lse */
    reals += pre ? d : 2 * d;                                     /* norms of the block */
    if (config->moe.mode != MOE_DISCRETE && model->E)
        reals +=
            (double)model->E + 3 * K + path_reals(config, K, alone) + d; /* scores, weights, experts, routed, y_c */
    if (config->moe.mode != MOE_CONTINUOUS)
        reals += d + 2 + path_reals(config, 1, alone) + d +
                 (config->moe.discrete_norm ? 2 * d : 0); /* xq, codes, y_d, norms */
    if (config->moe.mode == MOE_JOINT) reals += d + 4;    /* mix */
    return reals + ffn_reals(model);
}

/* The most that one turn of the softmax takes at once, in the cluster that takes the most; of a tail every token of the
 * turn, which is the worst case. */
static double turn_reals(const struct model *model, double tokens) {
    const struct softmax *softmax = &model->softmax;
    double d = (double)model->d_model, ranks = (double)(model->owners ? model->owners->size : 1), most = 0;
    double share = fmax(floor((double)softmax->room / ranks), 1), turns = fmax(ceil(tokens / share), 1);
    double n = ranks * ceil(tokens / turns), shared = ranks > 1 ? 2 * n * (d + ranks) : 0;
    for (int c = 0; c < softmax->clusters.count; ++c)
        most = fmax(most, n * ((double)softmax->weight[c]->count + 4 + (c ? 2 * d + 1 : 0)));
    return most + shared;
}

/* The most that is taken at once in the backward of a block: in the MoE half, or in attention (with scores per thread
 * left out: small). */
static double backward_reals(const struct model *model, bool alone) {
    const struct config *config = model->config;
    double d = (double)config->model.d_model, h = (double)config->model.d_inner,
           w = (double)(config->model.heads * config->model.d_head);
    double S = (double)(config->model.memory + config->model.segment) / (double)config->model.segment,
           K = model->E ? (double)model->blocks[0].moe.router.K_max : 0;
    double half = 4 * d, joint = config->moe.mode == MOE_JOINT ? 2 * d : 0; /* da, din, dy, dsum; dy_c, dy_d */
    double continuous = config->moe.mode == MOE_DISCRETE ? 0 : (alone ? 2 : 4) * K * d;
    double discrete = config->moe.mode == MOE_CONTINUOUS ? 0 : ((alone ? 3 : 5) * d);
    double moe = joint + continuous + discrete + h + ffn_reals(model),
           attention = 2 * w + 2 * S * w + (config->model.norm == NORM_PRE ? S * d : 0);
    return half + (moe > attention ? moe : attention);
}

struct footprint footprint_of(const struct step *step) {
    const struct model *model = step->model;
    const struct config *config = model->config;
    const struct memory *m = &step->memory;
    bool alone = model->group->size == 1;
    int64_t rows = 0;
    for (int64_t j = 0; j < step->accumulate; ++j)
        if (step->micro[j].rows > rows) rows = step->micro[j].rows;
    double tokens = (double)(rows * config->model.segment), d = (double)model->d_model;
    double per_token = (double)model->layers * layer_reals(model, alone) + 3 * d + 3, /* x, hidden, dhidden */
        backward = tokens * (backward_reals(model, alone) + 2 * d), turn = turn_reals(model, tokens);
    return (struct footprint){
        .parameters = 4.0 * sizeof(real) * (double)model->params.total,
        .activations = sizeof(real) * (tokens * per_token + fmax(backward, turn)),
        .memory = (double)((size_t)(m->layers * m->rows * m->capacity * m->d_model) * sizeof(real)),
    };
}
