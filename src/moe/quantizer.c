#include "moe/quantizer.h"

#include "moe/kind.h"

static const void *const kinds[] = {&quantizer_vq};
enum { KINDS = sizeof kinds / sizeof *kinds };

enum status quantizer_init(struct quantizer *quantizer, struct params *params, const struct config *config, int layer) {
    *quantizer = (struct quantizer){
        .layer = layer,
        .d_model = config->model.d_model,
        .M = config->quantizer.codes ? config->quantizer.codes : config->moe.experts,
        .straight_through = config->quantizer.straight_through,
        .contribution = config->quantizer.contribution,
        .alpha = config->quantizer.alpha,
        .beta = config->quantizer.beta,
    };
    quantizer->kind = kind_find(kinds, KINDS, "quantizer.kind", config->quantizer.kind);
    if (!quantizer->kind) return STATUS_CONFIG;
    quantizer->kind->init(quantizer, params, config);
    return STATUS_OK;
}

real *quantizer_forward(struct quantizer *quantizer, const struct pass *pass, struct routes *routes, const real *x,
                        int64_t N) {
    quantizer->codes = ARENA_ARRAY(pass->arena, int32_t, N);
    real *xq = ARENA_ARRAY(pass->arena, real, N * quantizer->d_model);
    struct arena_mark mark = arena_mark(pass->arena);
    real *scores = ARENA_ARRAY(pass->arena, real, N * quantizer->M);
    quantizer->kind->assign(quantizer, pass, quantizer->codes, scores, x, N);
    routes_apply(routes, ROUTE_CODES, quantizer->layer, quantizer->codes, scores, N, 1, quantizer->M);
    arena_release(pass->arena, mark);
    double error = quantizer->kind->forward(quantizer, pass, xq, x, N);
    quantizer->vq_loss = (1 + quantizer->beta) * error / (double)(pass->tokens_global * quantizer->d_model);
    return xq;
}
