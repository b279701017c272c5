#include "model/lm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/block.h"
#include "base/fault.h"
#include "base/log.h"

static size_t memory_bytes(const struct lm_memory *memory) {
    return (size_t)(memory->layers * memory->rows * memory->capacity * memory->d_model) * sizeof *memory->data;
}

void lm_memory_init(struct lm_memory *memory, int64_t layers, int64_t rows, int64_t capacity, int64_t d_model) {
    *memory = (struct lm_memory){layers, rows, capacity, d_model, 0, NULL};
    if (memory_bytes(memory)) memory->data = device_zeros(memory_bytes(memory), "attention memory (model.memory)");
}

void lm_memory_advance(struct lm_memory *memory, int64_t positions) {
    memory->length = memory->length + positions < memory->capacity ? memory->length + positions : memory->capacity;
}

void lm_memory_free(struct lm_memory *memory) {
    if (memory->data) device->release(memory->data, memory_bytes(memory));
    *memory = (struct lm_memory){0};
}

/* World = groups x ranks of a group; neighbours form a group. */
static enum status split_world(struct lm *lm, const struct config *config, struct comm *world) {
    int64_t size = config->parallel.expert ? config->parallel.expert : world->size, E = lm->E;
    if (world->size % size)
        return status_fail(STATUS_CONFIG, "parallel.expert: expected a divisor of the number of ranks, %d, found %lld",
                           world->size, (long long)size);
    if (E && size > E)
        return status_fail(STATUS_CONFIG,
                           "moe.experts: expected at least one expert per rank of a group, %lld, found %lld",
                           (long long)size, (long long)E);
    lm->world = world;
    lm->group = comm_split(world, (int)(world->rank / size));
    lm->replicas = comm_split(world, (int)(world->rank % size));
    lm->group->name = "experts";
    lm->replicas->name = "replicas";
    lm->params.experts_first = block_first(E, size, lm->group->rank);
    lm->params.experts_count = block_count(E, size, lm->group->rank);
    return STATUS_OK;
}

enum status lm_init(struct lm *lm, const struct config *config, int64_t V, struct comm *world, bool with_moments) {
    int64_t d = config->model.d_model, embedding[] = {V, d}, bias[] = {config->model.heads, config->model.d_head};
    struct params *params = &lm->params;
    *lm = (struct lm){.config = config, .V = V, .d_model = d, .layers = config->model.layers};
    const struct router_kind *router = router_kind_find(config->router.kind);
    if (!router) return STATUS_CONFIG;
    lm->E = config->moe.mode == MOE_CONTINUOUS && router->ffn == FFN_ONLY ? 0 : config->moe.experts;
    enum status status = split_world(lm, config, world);
    if (status) return status;
    lm->embedding = params_add(params, -1, "embedding.weight", PLACE_REPLICATED, INITIAL_WEIGHT, 2, embedding);
    lm->bias = params_add(params, -1, "softmax.bias", PLACE_REPLICATED, INITIAL_ZERO, 1, embedding);
    if (config->model.attention == ATTENTION_RELATIVE) {
        lm->bias_w = params_add(params, -1, "attention.bias_w", PLACE_REPLICATED, INITIAL_WEIGHT, 2, bias);
        lm->bias_r = params_add(params, -1, "attention.bias_r", PLACE_REPLICATED, INITIAL_WEIGHT, 2, bias);
    }
    lm->blocks = calloc((size_t)lm->layers, sizeof *lm->blocks);
    if (!lm->blocks) FATAL("out of memory");
    for (int i = 0; i < lm->layers; ++i)
        if ((status = block_init(&lm->blocks[i], params, config, i, V, lm->bias_w, lm->bias_r, world, lm->group)))
            return status;
    params_allocate(params, with_moments);
    return STATUS_OK;
}

void lm_free(struct lm *lm) {
    for (int64_t i = 0; lm->blocks && i < lm->layers; ++i) moe_free(&lm->blocks[i].moe);
    params_free(&lm->params);
    free(lm->blocks);
    comm_free(lm->group);
    comm_free(lm->replicas);
    *lm = (struct lm){0};
}

/* The last positions of (memory, x), oldest first; the filled part does not count the new ones yet. */
static void remember(struct lm_memory *memory, int64_t layer, int64_t row, const struct pass *pass, const real *x) {
    int64_t d = memory->d_model, T = pass->positions, C = memory->capacity,
            length = memory->length + T < C ? memory->length + T : C;
    int64_t fresh = T < length ? T : length, kept = length - fresh, moved = memory->length - kept;
    real *at = memory->data + (layer * memory->rows + row) * C * d;
    if (kept && moved) { /* the rows overlap their new places */
        struct arena_mark mark = arena_mark(pass->arena);
        real *aside = ARENA_ARRAY(pass->arena, real, pass->rows * kept * d);
        ops->copy_rows(aside, kept * d, at + moved * d, C * d, pass->rows, kept * d);
        ops->copy_rows(at, C * d, aside, kept * d, pass->rows, kept * d);
        arena_release(pass->arena, mark);
    }
    ops->copy_rows(at + kept * d, C * d, x + (T - fresh) * d, T * d, pass->rows, fresh * d);
}

/* Drop(embedding sqrt(d)), and where absolute + Drop(sinusoid(L - 1 - t)). */
static const real *embed(struct lm *lm, const struct pass *pass) {
    int64_t d = lm->d_model, N = pass->tokens, T = pass->positions;
    real *x = ARENA_ARRAY(pass->arena, real, N * d);
    ops->embedding_forward(x, lm->embedding->data, pass->ids, sqrt((double)d), N, d);
    ops->dropout(x, NULL, x, pass_dropout(pass, RNG_EMBEDDING, 0, 0), pass_token_first(pass), N, d);
    if (lm->config->model.attention == ATTENTION_ABSOLUTE) {
        real *positions = ARENA_ARRAY(pass->arena, real, T * d);
        ops->sinusoid(positions, T - 1, -1, pass_dropout(pass, RNG_POSITION, 0, 0), T, d);
        ops->add_rows(x, T * d, positions, 0, pass->rows, T * d);
    }
    return x;
}

struct lm_loss lm_loss(const struct lm *lm, const struct pass *pass) {
    int64_t n = (lm->layers + 1) * PASS_SUMS;
    double *sums = ARENA_ARRAY(pass->host, double, n);
    device->download(sums, pass->sums, (size_t)n * sizeof *sums);
    struct lm_loss loss = {.task = sums[SUM_TASK] / (double)pass->tokens_global};
    for (int64_t i = 0; pass->train && i < lm->layers; ++i) {
        const struct moe *moe = &lm->blocks[i].moe;
        const double *of_layer = sums + (i + 1) * PASS_SUMS;
        /* A global balance loss is the same on every rank: one of them counts it. */
        bool counts = moe->router.balance_scope == BALANCE_RANK || lm->world->rank == 0;
        if (moe->mode != MOE_CONTINUOUS) loss.vq += quantizer_loss(&moe->quantizer, pass, of_layer[SUM_VQ]);
        if (moe->mode == MOE_DISCRETE) continue;
        if (counts) loss.balance += pass_share(pass) * of_layer[SUM_BALANCE];
        loss.distill += of_layer[SUM_DISTILL] / (double)pass->tokens_global;
    }
    return loss;
}

void lm_forward(struct lm *lm, struct pass *pass, struct routes *routes, struct lm_memory *memory, int64_t memory_row,
                const int32_t *targets) {
    int64_t d = lm->d_model, N = pass->tokens, length = memory ? memory->length : 0, S = length + pass->positions;
    size_t sums = (size_t)(lm->layers + 1) * PASS_SUMS;
    lm->targets = targets;
    pass->ranks = lm->world->size;
    pass->sums = ARENA_ARRAY(pass->arena, double, sums);
    device->set(pass->sums, 0, sums * sizeof *pass->sums);
    const real *x = lm->embedded = embed(lm, pass);
    real *sinusoids = NULL;
    if (lm->config->model.attention == ATTENTION_RELATIVE) {
        sinusoids = ARENA_ARRAY(pass->arena, real, S * d);
        ops->sinusoid(sinusoids, S - 1, -1, pass_dropout(pass, RNG_POSITION, 0, 0), S, d);
    }
    for (int i = 0; i < lm->layers; ++i) {
        const real *held = memory ? memory->data + (i * memory->rows + memory_row) * memory->capacity * d : NULL;
        log_place(pass->step, i);
        const real *out =
            block_forward(&lm->blocks[i], pass, routes, x, held, memory ? memory->capacity : 0, length, sinusoids);
        if (memory) remember(memory, i, memory_row, pass, x);
        x = out;
    }
    log_place(pass->step, -1);
    lm->hidden = ARENA_ARRAY(pass->arena, real, N * d);
    lm->logits = ARENA_ARRAY(pass->arena, real, N * lm->V);
    ops->dropout(lm->hidden, NULL, x, pass_dropout(pass, RNG_FINAL, 0, 0), pass_token_first(pass), N, d);
    ops->linear_forward(lm->logits, lm->hidden, lm->embedding->data, lm->bias->data, N, lm->V, d);
    if (!targets) return;
    lm->lse = ARENA_ARRAY(pass->arena, real, N);
    lm->losses = ARENA_ARRAY(pass->arena, real, N);
    ops->cross_entropy_forward(lm->losses, lm->lse, lm->logits, targets, N, lm->V);
    ops->sum(pass_sum(pass, -1, SUM_TASK), lm->losses, N);
}

/* Sums the gradients of parameters from .. to - 1 of the list, which all are final, over the ranks that hold the same
 * values. Neighbours in a vector go as one. */
static void reduce_gradients(struct lm *lm, int from, int to) {
    struct params *params = &lm->params;
    FAULT_POINT("reduction");
    device->await(QUEUE_REDUCE, device->mark(QUEUE_COMPUTE));
    for (int placement = PLACE_REPLICATED; placement <= PLACE_EXPERT; ++placement) {
        int64_t first = -1, end = -1;
        for (int i = from; i < to; ++i) {
            const struct param *p = params->list[i];
            if ((int)p->placement != placement) continue;
            CHECK(first < 0 || p->offset >= end);
            if (first < 0) first = p->offset;
            end = p->offset + p->size;
        }
        if (end > first)
            comm_sum_here(placement == PLACE_EXPERT ? lm->replicas : lm->world, QUEUE_REDUCE, params->grad + first,
                          end - first, COMM_REAL);
    }
}

void lm_backward(struct lm *lm, const struct pass *pass, bool reduce) {
    int64_t d = lm->d_model, N = pass->tokens;
    int from = lm->params.count;
    struct arena_mark mark = arena_mark(pass->arena);
    real *dx = ARENA_ARRAY(pass->arena, real, N * d), *dout = ARENA_ARRAY(pass->arena, real, N * d);
    ops->cross_entropy_backward(lm->logits, lm->logits, lm->lse, lm->targets, 1 / (double)pass->tokens_global, N,
                                lm->V);
    ops->linear_backward(dx, false, lm->embedding->grad, lm->bias->grad, lm->logits, lm->hidden, lm->embedding->data, N,
                         lm->V, d);
    ops->dropout(dx, NULL, dx, pass_dropout(pass, RNG_FINAL, 0, 0), pass_token_first(pass), N, d);
    for (int i = (int)lm->layers - 1; i >= 0; --i) {
        real *swap = dout;
        dout = dx;
        dx = swap;
        log_place(pass->step, i);
        FAULT_POINT("backward");
        block_backward(&lm->blocks[i], pass, dx, dout);
        if (reduce) reduce_gradients(lm, lm->blocks[i].params_first, from);
        from = lm->blocks[i].params_first;
    }
    log_place(pass->step, -1);
    ops->dropout(dx, NULL, dx, pass_dropout(pass, RNG_EMBEDDING, 0, 0), pass_token_first(pass), N, d);
    ops->embedding_backward(lm->embedding->grad, dx, pass->ids, sqrt((double)d), pass->arena, N, lm->V, d);
    if (reduce) {
        reduce_gradients(lm, 0, from);
        device->await(QUEUE_COMPUTE, device->mark(QUEUE_REDUCE));
    }
    arena_release(pass->arena, mark);
}

void lm_start(struct lm *lm) {
    params_initialise(&lm->params, (uint64_t)lm->config->run.seed);
    for (int64_t i = 0; i < lm->layers; ++i) moe_start(&lm->blocks[i].moe);
}

void lm_after_step(struct lm *lm, int64_t step) {
    for (int64_t i = 0; i < lm->layers; ++i) moe_after_step(&lm->blocks[i].moe, step);
#ifndef NDEBUG
    int64_t least = (int64_t)params_hash(&lm->params), most = least;
    comm_allreduce(lm->world, &least, 1, COMM_INT64, COMM_MIN);
    comm_allreduce(lm->world, &most, 1, COMM_INT64, COMM_MAX);
    if (least != most) FATAL("step %lld: the ranks' replicated parameters or state differ", (long long)step);
#endif
}

int64_t lm_first_not_finite(const struct lm *lm, const struct pass *pass) {
    int64_t n = pass->tokens * lm->d_model;
    if (!ops->all_finite(lm->embedded, n)) return -1;
    for (int64_t i = 0; i < lm->layers; ++i)
        if (!ops->all_finite(lm->blocks[i].out, n)) return i;
    return ops->all_finite(lm->logits, pass->tokens * lm->V) ? lm->layers + 1 : lm->layers;
}
