#include "train/optimizer.h"

#include <math.h>

#include "base/log.h"
#include "base/phase.h"

static const double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;

double optimizer_lr(const struct config *config, int64_t s) {
    double lr = config->optim.lr, total = (double)config_total_steps(config);
    double warmup = (double)config->optim.warmup, at = (double)s;
    if (at < warmup) return lr * (at + 1) / warmup;
    double done = total > warmup ? fmin((at - warmup) / (total - warmup), 1) : 1;
    return lr / 2 * (1 + cos(M_PI * done));
}

/* Adam over what stands side by side in the table's vectors, so over all of it at once where nothing stands still. */
static void update(struct params *params, int64_t first, int64_t end, double lr, double t) {
    ops->adam(params->data + first, params->m + first, params->v + first, params->grad + first,
              params->update + UPDATE_SCALE, lr, beta1, beta2, epsilon, 1 - pow(beta1, t), 1 - pow(beta2, t),
              end - first);
}

static void update_all(struct params *params, double lr, double t) {
    int64_t first = 0;
    for (int i = 0; i < params->count; ++i) {
        const struct param *p = params->list[i];
        if (p->placement == PLACE_STATE || !p->still) continue;
        CHECK(p->placement == PLACE_REPLICATED); /* ordered as the list is */
        if (p->offset > first) update(params, first, p->offset, lr, t);
        first = p->offset + p->size;
    }
    if (params->trained > first) update(params, first, params->trained, lr, t);
}

/* Replicated parameters are the same everywhere; each expert counts once, on one rank of the group, each row of a cut
 * vocabulary on one rank of the world. */
void optimizer_update(struct model *model, int64_t s) {
    struct params *params = &model->params;
    int64_t experts = params->with_experts - params->replicated, vocabulary = params->trained - params->with_experts;
    double *squares = params->update + UPDATE_SQUARES;
    phase_enter(PHASE_UPDATE);
    ops->sum_squares(squares, params->grad, params->replicated);
    ops->sum_squares(squares + 1, params->grad + params->replicated, experts);
    comm_sum_here(model->group, QUEUE_COMPUTE, squares + 1, 1, COMM_DOUBLE);
    if (model->owners) { /* else it stays 0 */
        ops->sum_squares(squares + 2, params->grad + params->with_experts, vocabulary);
        comm_sum_here(model->owners, QUEUE_COMPUTE, squares + 2, 1, COMM_DOUBLE);
    }
    ops->clip_scale(params->update + UPDATE_SCALE, params->update + UPDATE_NORM, squares, model->config->optim.clip);
    update_all(params, optimizer_lr(model->config, s), (double)s + 1);
}

double optimizer_norm(const struct model *model) {
    double norm;
    device->download(&norm, model->params.update + UPDATE_NORM, sizeof norm);
    return norm;
}
