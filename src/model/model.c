#include "model/model.h"

#include <stdlib.h>
#include <string.h>

#include "base/block.h"
#include "base/fault.h"
#include "base/log.h"

static size_t memory_bytes(const struct memory *memory) {
    return (size_t)(memory->layers * memory->rows * memory->capacity * memory->d_model) * sizeof *memory->data;
}

void memory_init(struct memory *memory, int64_t layers, int64_t rows, int64_t capacity, int64_t d_model) {
    *memory = (struct memory){layers, rows, capacity, d_model, 0, NULL};
    if (memory_bytes(memory)) memory->data = device_zeros(memory_bytes(memory), "attention memory (model.memory)");
}

void memory_advance(struct memory *memory, int64_t positions) {
    memory->length = memory->length + positions < memory->capacity ? memory->length + positions : memory->capacity;
}

void memory_free(struct memory *memory) {
    if (memory->data) device->release(memory->data, memory_bytes(memory));
    *memory = (struct memory){0};
}

/* World = groups x ranks of a group; neighbours form a group. */
static enum status split_world(struct model *model, const struct config *config, struct comm *world) {
    int64_t size = config->parallel.expert ? config->parallel.expert : world->size, E = model->E;
    if (world->size % size)
        return status_fail(STATUS_CONFIG, "parallel.expert: expected a divisor of the number of ranks, %d, found %lld",
                           world->size, (long long)size);
    if (E && size > E)
        return status_fail(STATUS_CONFIG,
                           "moe.experts: expected at least one expert per rank of a group, %lld, found %lld",
                           (long long)size, (long long)E);
    model->world = world;
    model->group = comm_split(world, (int)(world->rank / size));
    model->replicas = comm_split(world, (int)(world->rank % size));
    model->group->name = "experts";
    model->replicas->name = "replicas";
    model->owners = config->parallel.vocabulary ? comm_split(world, 0) : NULL;
    if (model->owners) model->owners->name = "vocabulary";
    model->params.rank = world->rank;
    model->params.ranks = world->size;
    model->params.experts_first = block_first(E, size, model->group->rank);
    model->params.experts_count = block_count(E, size, model->group->rank);
    return STATUS_OK;
}

enum status model_init(struct model *model, const struct config *config, int64_t V, int64_t classes, struct comm *world,
                       bool with_moments) {
    int64_t bias[] = {config->model.heads, config->model.d_head};
    struct params *params = &model->params;
    *model = (struct model){.config = config, .V = V, .d_model = config->model.d_model, .layers = config->model.layers};
    const struct router_kind *router = router_kind_find(config->router.kind);
    if (!router) return STATUS_CONFIG;
    model->E = config->moe.mode == MOE_CONTINUOUS && router->ffn == FFN_ONLY ? 0 : config->moe.experts;
    enum status status = split_world(model, config, world);
    if (status) return status;
    if ((status = embedding_init(&model->embedding, params, config, V, model->owners))) return status;
    if (classes)
        head_init(&model->head, params, config, classes);
    else if ((status = softmax_init(&model->softmax, params, config, V, &model->embedding)))
        return status;
    if (config->model.attention == ATTENTION_RELATIVE) {
        model->bias_w = params_add(params, -1, "attention.bias_w", PLACE_REPLICATED, INITIAL_WEIGHT, 2, bias);
        model->bias_r = params_add(params, -1, "attention.bias_r", PLACE_REPLICATED, INITIAL_WEIGHT, 2, bias);
    }
    model->blocks = calloc((size_t)model->layers, sizeof *model->blocks);
    if (!model->blocks) FATAL("out of memory");
    for (int i = 0; i < model->layers; ++i)
        if ((status = block_init(&model->blocks[i], params, config, i, V, model->bias_w, model->bias_r, world,
                                 model->group)))
            return status;
    params_allocate(params, with_moments);
    return STATUS_OK;
}

void model_free(struct model *model) {
    for (int64_t i = 0; model->blocks && i < model->layers; ++i) moe_free(&model->blocks[i].moe);
    params_free(&model->params);
    free(model->blocks);
    comm_free(model->group);
    comm_free(model->replicas);
    comm_free(model->owners);
    *model = (struct model){0};
}

/* The last positions of (memory, x), oldest first; the filled part does not count the new ones yet. */
static void remember(struct memory *memory, int64_t layer, int64_t row, const struct pass *pass, const real *x) {
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

/* positions [T, d] to every row of x. */
static void add_positions(const struct pass *pass, real *x, const real *positions, int64_t d) {
    int64_t N = pass->tokens, T = pass->positions;
    if (!pass->ragged) {
        ops->add_rows(x, T * d, positions, 0, pass->rows, T * d);
        return;
    }
    struct arena_mark mark = arena_mark(pass->arena);
    real *of_token = ARENA_ARRAY(pass->arena, real, N * d);
    ops->gather_rows(of_token, positions, pass->ragged->position, 1, N, d);
    ops->add(x, x, of_token, N * d);
    arena_release(pass->arena, mark);
}

/* Drop(embedding sqrt(d)), and where absolute + Drop(sinusoid(L - 1 - t)). */
static const real *embed(struct model *model, const struct pass *pass) {
    int64_t d = model->d_model, N = pass->tokens, T = pass->positions;
    real *x = embedding_forward(&model->embedding, pass);
    ops->dropout(x, NULL, x, pass_dropout(pass, RNG_EMBEDDING, 0, 0), pass_token_first(pass), N, d);
    if (model->config->model.attention == ATTENTION_ABSOLUTE) {
        real *positions = ARENA_ARRAY(pass->arena, real, T * d);
        ops->sinusoid(positions, T - 1, -1, pass_dropout(pass, RNG_POSITION, 0, 0), T, d);
        add_positions(pass, x, positions, d);
    }
    return x;
}

struct model_loss model_loss(const struct model *model, const struct pass *pass) {
    int64_t n = (model->layers + 1) * PASS_SUMS;
    double *sums = ARENA_ARRAY(pass->host, double, n);
    device->download(sums, pass->sums, (size_t)n * sizeof *sums);
    struct model_loss loss = {.task = sums[SUM_TASK] / (model->head.classes ? 1 : (double)pass->tokens_global)};
    for (int64_t i = 0; pass->train && i < model->layers; ++i) {
        const struct moe *moe = &model->blocks[i].moe;
        const double *of_layer = sums + (i + 1) * PASS_SUMS;
        /* A global balance loss is the same on every rank: one of them counts it. */
        bool counts = moe->router.balance_scope == BALANCE_RANK || model->world->rank == 0;
        if (moe->mode != MOE_CONTINUOUS) loss.vq += quantizer_loss(&moe->quantizer, pass, of_layer[SUM_VQ]);
        if (moe->mode == MOE_DISCRETE) continue;
        if (counts) loss.balance += pass_share(pass) * of_layer[SUM_BALANCE];
        loss.distill += of_layer[SUM_DISTILL] / (double)pass->tokens_global;
    }
    return loss;
}

void model_forward(struct model *model, struct pass *pass, struct routes *routes, struct memory *memory,
                   int64_t memory_row, const int32_t *targets) {
    int64_t d = model->d_model, N = pass->tokens, length = memory ? memory->length : 0, S = length + pass->positions;
    size_t sums = (size_t)(model->layers + 1) * PASS_SUMS;
    pass->ranks = model->world->size;
    pass->sums = ARENA_ARRAY(pass->arena, double, sums);
    device->set(pass->sums, 0, sums * sizeof *pass->sums);
    const real *x = model->embedded = embed(model, pass);
    real *sinusoids = NULL;
    if (model->config->model.attention == ATTENTION_RELATIVE) {
        sinusoids = ARENA_ARRAY(pass->arena, real, S * d);
        ops->sinusoid(sinusoids, S - 1, -1, pass_dropout(pass, RNG_POSITION, 0, 0), S, d);
    }
    for (int i = 0; i < model->layers; ++i) {
        const real *held = memory ? memory->data + (i * memory->rows + memory_row) * memory->capacity * d : NULL;
        log_place(pass->step, i);
        const real *out =
            block_forward(&model->blocks[i], pass, routes, x, held, memory ? memory->capacity : 0, length, sinusoids);
        if (memory) remember(memory, i, memory_row, pass, x);
        x = out;
    }
    log_place(pass->step, -1);
    model->hidden = ARENA_ARRAY(pass->arena, real, N * d);
    ops->dropout(model->hidden, NULL, x, pass_dropout(pass, RNG_FINAL, 0, 0), pass_token_first(pass), N, d);
    if (model->head.classes) {
        head_forward(&model->head, pass, model->hidden);
        if (targets) head_loss(&model->head, pass, pass_upload(pass, targets, pass->rows), pass->shares);
    } else if (targets) {
        softmax_loss(&model->softmax, pass, model->hidden, targets);
    }
}

/* Sums the gradients of parameters from .. to - 1 of the list, which all are final, over the ranks that hold the same
 * values. Neighbours in a vector go as one. */
static void reduce_gradients(struct model *model, int from, int to) {
    struct params *params = &model->params;
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
            comm_sum_here(placement == PLACE_EXPERT ? model->replicas : model->world, QUEUE_REDUCE,
                          params->grad + first, end - first, COMM_REAL);
    }
}

void model_backward(struct model *model, const struct pass *pass, bool reduce) {
    int64_t d = model->d_model, N = pass->tokens;
    int from = model->params.count;
    struct arena_mark mark = arena_mark(pass->arena);
    real *dx = ARENA_ARRAY(pass->arena, real, N * d), *dout = ARENA_ARRAY(pass->arena, real, N * d);
    const real *dhidden = model->softmax.dhidden;
    if (model->head.classes) {
        head_backward(&model->head, pass, dx);
        dhidden = dx;
    }
    ops->dropout(dx, NULL, dhidden, pass_dropout(pass, RNG_FINAL, 0, 0), pass_token_first(pass), N, d);
    for (int i = (int)model->layers - 1; i >= 0; --i) {
        real *swap = dout;
        dout = dx;
        dx = swap;
        log_place(pass->step, i);
        FAULT_POINT("backward");
        block_backward(&model->blocks[i], pass, dx, dout);
        if (reduce) reduce_gradients(model, model->blocks[i].params_first, from);
        from = model->blocks[i].params_first;
    }
    log_place(pass->step, -1);
    ops->dropout(dx, NULL, dx, pass_dropout(pass, RNG_EMBEDDING, 0, 0), pass_token_first(pass), N, d);
    embedding_backward(&model->embedding, pass, dx);
    if (reduce) {
        reduce_gradients(model, 0, from);
        device->await(QUEUE_COMPUTE, device->mark(QUEUE_REDUCE));
    }
    arena_release(pass->arena, mark);
}

void model_start(struct model *model) {
    params_initialise(&model->params, (uint64_t)model->config->run.seed);
    for (int64_t i = 0; i < model->layers; ++i) moe_start(&model->blocks[i].moe);
}

void model_after_step(struct model *model, int64_t step) {
    for (int64_t i = 0; i < model->layers; ++i) moe_after_step(&model->blocks[i].moe, step);
#ifndef NDEBUG
    int64_t least = (int64_t)params_hash(&model->params), most = least;
    comm_allreduce(model->world, &least, 1, COMM_INT64, COMM_MIN);
    comm_allreduce(model->world, &most, 1, COMM_INT64, COMM_MAX);
    if (least != most) FATAL("step %lld: the ranks' replicated parameters or state differ", (long long)step);
#endif
}

int64_t model_first_not_finite(const struct model *model, const struct pass *pass) {
    int64_t n = pass->tokens * model->d_model;
    if (!ops->all_finite(model->embedded, n)) return -1;
    for (int64_t i = 0; i < model->layers; ++i)
        if (!ops->all_finite(model->blocks[i].out, n)) return i;
    const struct head *head = &model->head;
    bool finite = head->classes ? ops->all_finite(head->logits, pass->rows * head->classes)
                                : ops->all_finite(model->softmax.losses, model->softmax.n_losses);
    return finite ? model->layers + 1 : model->layers;
}
