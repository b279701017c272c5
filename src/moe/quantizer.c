#include "moe/quantizer.h"

#include <stdlib.h>

#include "moe/kind.h"

const double quantizer_norm_floor = 1e-12;

#define QUANTIZER_LISTED(name) &quantizer_##name,
const struct quantizer_kind *const quantizer_kinds[] = {QUANTIZER_KINDS(QUANTIZER_LISTED)};
const int quantizer_n_kinds = sizeof quantizer_kinds / sizeof *quantizer_kinds;

enum status quantizer_init(struct quantizer *q, struct params *params, const struct config *config, int layer,
                           struct comm *world) {
    *q = (struct quantizer){
        .kind = kind_find((const void *const *)quantizer_kinds, quantizer_n_kinds, "quantizer.kind",
                          config->quantizer.kind),
        .layer = layer,
        .d_model = config->model.d_model,
        .width = config->model.d_model,
        .M = config->quantizer.codes ? config->quantizer.codes : config->moe.experts,
        .straight_through = config->quantizer.straight_through,
        .contribution = config->quantizer.contribution,
        .alpha = config->quantizer.alpha,
        .beta = config->quantizer.beta,
        .decay = config->quantizer.decay,
        .seed = (uint64_t)config->run.seed,
        .world = world,
    };
    if (!q->kind) return STATUS_CONFIG;
    if (q->kind->full_only && q->straight_through != STRAIGHT_FULL)
        return status_fail(STATUS_CONFIG,
                           "quantizer.straight_through: expected full with quantizer.kind: %s, whose codes do not lie "
                           "among the inputs that blend would mix them with, found blend",
                           q->kind->name);
    q->kind->init(q, params, config);
    return STATUS_OK;
}

void quantizer_free(struct quantizer *q) {
    if (q->own && q->kind->free) q->kind->free(q);
    free(q->own);
    q->own = NULL;
}

void quantizer_add_codes(struct quantizer *q, struct params *params, const struct config *config,
                         enum placement placement) {
    int64_t shape[] = {q->M, q->width};
    double edge = 1 / (double)q->M;
    struct initial uniform = {INITIAL_UNIFORM, -edge, edge};
    q->table = params_add(params, q->layer, "quantizer.codes", placement,
                          config->quantizer.init == CODE_UNIFORM ? uniform : INITIAL_WEIGHT, 2, shape);
}

real *quantizer_normalize(const struct pass *pass, real **norms, const real *in, int64_t N, int64_t D) {
    real *out = ARENA_ARRAY(pass->arena, real, N * D);
    *norms = ARENA_ARRAY(pass->arena, real, N);
    ops->normalize_rows_forward(out, *norms, in, quantizer_norm_floor, N, D);
    return out;
}

static void choose(struct quantizer *q, const struct pass *pass, struct routes *routes, const real *x, int64_t N) {
    struct arena_mark mark = arena_mark(pass->arena);
    bool collects = pass->train && q->kind->collect && quantizer_moves(q),
         wanted = (routes && routes->replay) || collects;
    real *scores = wanted ? ARENA_ARRAY(pass->arena, real, N * q->M) : NULL;
    ops->nearest_code(q->codes, scores, q->key_z, q->key_v, pass->arena, N, q->M, q->width);
    routes_apply(routes, ROUTE_CODES, q->layer, q->codes, scores, N, 1, q->M);
    if (collects) q->kind->collect(q, pass, scores, x, N);
    arena_release(pass->arena, mark);
    int32_t *seen = ARENA_ARRAY(pass->host, int32_t, N);
    device->fetch(seen, q->codes, (size_t)N * sizeof *seen);
    q->seen = seen;
}

/* full: the code itself; blend: (1 - c) x + c (v - x), the published odd form. */
real *quantizer_forward(struct quantizer *q, const struct pass *pass, struct routes *routes, const real *x, int64_t N) {
    bool full = q->straight_through == STRAIGHT_FULL;
    q->codes = ARENA_ARRAY(pass->arena, int32_t, N);
    q->v = q->table ? q->table->data : NULL;
    q->z = x;
    q->key_v = q->key_z = NULL;
    if (q->kind->prepare) q->kind->prepare(q, pass, x, N);
    if (!q->key_v) q->key_v = q->v;
    if (!q->key_z) q->key_z = q->z;
    real *zq = ARENA_ARRAY(pass->arena, real, N * q->width);
    choose(q, pass, routes, x, N);
    ops->quantize(zq, q->z, q->v, q->codes, full ? 0 : 1 - 2 * q->contribution, full ? 1 : q->contribution, N,
                  q->width);
    if (pass->train) ops->code_error(pass_sum(pass, q->layer, SUM_VQ), q->z, q->v, q->codes, N, q->width);
    return q->kind->lift ? q->kind->lift(q, pass, zq, N) : zq;
}

bool quantizer_moves(const struct quantizer *q) { return q->kind->after_step && q->alpha > 0; }

double quantizer_loss(const struct quantizer *q, const struct pass *pass, double sum) {
    return (q->kind->codes_lose + q->beta) * sum / (double)(pass->tokens_global * q->width);
}

void quantizer_backward(struct quantizer *q, const struct pass *pass, real *dx, const real *dxq, const real *x,
                        int64_t N) {
    double through = q->straight_through == STRAIGHT_FULL ? 1 : 1 - q->contribution;
    double scale = 2 * q->alpha / (double)(pass->tokens_global * q->width);
    real *dz = dx, *dv = q->table ? q->table->grad : NULL;
    if (q->z != x) {
        dz = ARENA_ARRAY(pass->arena, real, N * q->width);
        ops->fill(dz, 0, N * q->width);
    }
    if (!q->table || q->v != q->table->data) {
        dv = ARENA_ARRAY(pass->arena, real, q->M * q->width);
        ops->fill(dv, 0, q->M * q->width);
    }
    const real *dzq = q->kind->lift ? q->kind->lift_backward(q, pass, dxq, N) : dxq;
    ops->add_scaled(dz, dzq, through, N * q->width);
    ops->code_error_backward(dz, dv, q->z, q->v, q->codes, q->beta * scale, q->kind->codes_lose * scale, pass->arena, N,
                             q->M, q->width);
    if (q->kind->backward) q->kind->backward(q, pass, dx, dz, dv, x, N);
}
