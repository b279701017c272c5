#include "train/optimizer.h"

#include <math.h>

static const double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;

double optimizer_lr(const struct config *config, int64_t s) {
    double lr = config->optim.lr, total = (double)config_total_steps(config);
    double warmup = (double)config->optim.warmup, at = (double)s;
    if (at < warmup) return lr * (at + 1) / warmup;
    double done = total > warmup ? fmin((at - warmup) / (total - warmup), 1) : 1;
    return lr / 2 * (1 + cos(M_PI * done));
}

/* Replicated parameters are the same everywhere; each expert counts once, on one rank of the group. */
static double gradient_norm(struct lm *lm) {
    const struct params *params = &lm->params;
    double experts = ops->sum_squares(params->grad + params->replicated, params->trained - params->replicated);
    comm_allreduce(lm->group, &experts, 1, COMM_DOUBLE, COMM_SUM);
    return sqrt(ops->sum_squares(params->grad, params->replicated) + experts);
}

double optimizer_update(struct lm *lm, int64_t s) {
    struct params *params = &lm->params;
    double norm = gradient_norm(lm), clip = lm->config->optim.clip, t = (double)s + 1;
    if (!isfinite(norm)) return norm;
    double scale = fmin(1, clip / (norm + 1e-6));
    for (int i = 0; i < params->count; ++i) {
        const struct param *p = params->list[i];
        if (p->placement == PLACE_STATE || p->still) continue;
        ops->adam(p->data, params->m + p->offset, params->v + p->offset, p->grad, scale, optimizer_lr(lm->config, s),
                  beta1, beta2, epsilon, 1 - pow(beta1, t), 1 - pow(beta2, t), p->size);
    }
    return norm;
}
