#include "train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/block.h"
#include "base/log.h"
#include "base/phase.h"
#include "train/collapse.h"

enum { SCALARS = 4 }; /* task, vq, balance, distill lead the packed vector, then dropped, load and usage by layer */

/* Tokens of so many rows; lengths NULL: each has a whole segment. */
static int64_t tokens_of(const struct step *step, const int32_t *lengths, int64_t first, int64_t rows) {
    return lengths ? ragged_tokens(lengths + first, rows) : rows * step->model->config->model.segment;
}

/* The rows of a global batch over micro-batches and ranks. */
static void cut(struct step *step, int64_t rows, const int32_t *lengths) {
    const struct comm *world = step->model->world;
    int64_t most = step->model->config->train.accumulate;
    step->rows_global = rows;
    step->tokens_global = tokens_of(step, lengths, 0, rows);
    step->accumulate = rows < most ? rows : most;
    step->rows = step->tokens = 0;
    for (int64_t j = 0; j < step->accumulate; ++j) {
        int64_t all = block_count(rows, step->accumulate, j), before = block_first(rows, step->accumulate, j);
        int64_t first = before + block_first(all, world->size, world->rank),
                count = block_count(all, world->size, world->rank);
        step->micro[j] = (struct micro_batch){.rows_global = all,
                                              .first = first,
                                              .rows = count,
                                              .local = step->rows,
                                              .token_first = tokens_of(step, lengths, 0, first),
                                              .tokens = tokens_of(step, lengths, first, count),
                                              .token_local = step->tokens};
        step->rows += count;
        step->tokens += step->micro[j].tokens;
    }
}

void step_init(struct step *step, struct model *model) {
    const struct config *config = model->config;
    int64_t L = model->layers, E = model->E;
    *step = (struct step){.model = model};
    step->codes = config->moe.mode == MOE_CONTINUOUS ? 0 : model->blocks[0].moe.quantizer.M;
    step->micro = calloc((size_t)config->train.accumulate, sizeof *step->micro);
    step->n_packed = SCALARS + L * (2 + E + step->codes);
    step->packed = calloc((size_t)step->n_packed, sizeof *step->packed);
    step->stats.hashes = calloc((size_t)L, sizeof *step->stats.hashes);
    if (!step->micro || !step->packed || !step->stats.hashes) FATAL("out of memory");
    step->stats.dropped = step->packed + SCALARS;
    step->stats.load = step->stats.dropped + 2 * L;
    step->stats.usage = step->stats.load + L * E;
    if (model->head.classes) {
        step->class_logits = malloc((size_t)(config->train.batch * model->head.classes) * sizeof *step->class_logits);
        if (!step->class_logits) FATAL("out of memory");
    }
    cut(step, config->train.batch, NULL);
    memory_init(&step->memory, L, step->rows, model->head.classes ? 0 : config->model.memory, model->d_model);
}

void step_free(struct step *step) {
    free(step->micro);
    free(step->packed);
    free(step->class_logits);
    free(step->stats.hashes);
    memory_free(&step->memory);
    pass_memory_free(&step->arenas);
    *step = (struct step){0};
}

static void keep_class_logits(const struct step *step) {
    const struct head *head = &step->model->head;
    const struct pass *pass = &step->pending;
    if (head->classes)
        device->download(step->class_logits + pass->row_first * head->classes, head->logits,
                         (size_t)(pass->rows * head->classes) * sizeof(real));
}

/* What the pending micro-batch leaves; waits for it. */
static void count(struct step *step) {
    struct model *model = step->model;
    const struct pass *pass = &step->pending;
    keep_class_logits(step);
    struct model_loss loss = model_loss(model, pass);
    step->packed[0] += loss.task;
    step->packed[1] += loss.vq;
    step->packed[2] += loss.balance;
    step->packed[3] += loss.distill;
    for (int64_t i = 0; i < model->layers; ++i)
        moe_count(&model->blocks[i].moe, pass, step->stats.load + i * model->E, step->stats.usage + i * step->codes,
                  step->stats.dropped + 2 * i, &step->stats.hashes[i]);
    if (isfinite(loss.task + loss.vq + loss.balance + loss.distill)) return;
    int64_t where = model_first_not_finite(model, pass);
    if (where < step->stats.not_finite) step->stats.not_finite = where;
}

static void reduce_stats(struct step *step) {
    struct model *model = step->model;
    struct step_stats *stats = &step->stats;
    comm_allreduce(model->world, step->packed, step->n_packed, COMM_DOUBLE, COMM_SUM);
    comm_allreduce(model->world, stats->hashes, model->layers, COMM_INT64, COMM_SUM);
    comm_allreduce(model->world, &stats->not_finite, 1, COMM_INT64, COMM_MIN);
    if (model->head.classes)
        comm_allreduce(model->world, step->class_logits, step->rows_global * model->head.classes, COMM_REAL, COMM_SUM);
    stats->task = step->packed[0];
    stats->vq = step->packed[1];
    stats->balance = step->packed[2];
    stats->distill = step->packed[3];
    stats->loss = stats->task + model->config->quantizer.alpha * stats->vq +
                  model->config->router.balance * stats->balance + stats->distill;
}

static struct pass pass_of(struct step *step, const struct micro_batch *micro, int64_t number) {
    const struct config *config = step->model->config;
    int64_t T = config->model.segment;
    return (struct pass){
        .arena = &step->arenas.here,
        .host = &step->arenas.host,
        .train = true,
        .seed = (uint64_t)config->run.seed,
        .step = number,
        .rows = micro->rows,
        .row_first = micro->first,
        .positions = T,
        .tokens = micro->rows * T,
        .tokens_micro = micro->rows_global * T,
        .tokens_global = config->train.batch * T,
        .dropout = config->model.dropout,
        .attention_dropout = config->model.attention_dropout,
    };
}

static void keep_logits(const struct step *step, int64_t at) {
    const struct model *model = step->model;
    if (step->keep_logits)
        softmax_scores(&model->softmax, &step->pending, step->keep_logits + at * model->V, model->hidden,
                       step->pending.tokens);
}

/* Everything that micro-batches add to begins at 0. */
static void begin(struct step *step) {
    struct model *model = step->model;
    ops->fill(model->params.grad, 0, model->params.trained);
    memset(step->packed, 0, (size_t)step->n_packed * sizeof *step->packed);
    memset(step->stats.hashes, 0, (size_t)model->layers * sizeof *step->stats.hashes);
    step->stats.not_finite = model->layers + 1;
}

static struct pass *begin_micro(struct step *step, int64_t j, int64_t number) {
    if (j) count(step);
    phase_enter(PHASE_FORWARD);
    pass_memory_reset(&step->arenas);
    step->pending = pass_of(step, &step->micro[j], number);
    return &step->pending;
}

static void go_back(struct step *step, int64_t j) {
    phase_enter(PHASE_BACKWARD);
    model_backward(step->model, &step->pending, j == step->accumulate - 1);
}

void step_queue(struct step *step, int64_t number, struct routes *routes, const int32_t *tokens,
                const int32_t *targets) {
    struct model *model = step->model;
    int64_t T = model->config->model.segment;
    begin(step);
    for (int64_t j = 0; j < step->accumulate; ++j) {
        int64_t at = step->micro[j].token_local;
        struct pass *pass = begin_micro(step, j, number);
        pass->ids_host = tokens + at;
        pass->ids = pass_upload(pass, pass->ids_host, pass->tokens);
        if (routes) routes->at = at;
        model_forward(model, pass, routes, model->config->model.memory ? &step->memory : NULL, step->micro[j].local,
                      targets + at);
        keep_logits(step, at);
        go_back(step, j);
    }
    memory_advance(&step->memory, T);
}

void step_queue_batch(struct step *step, int64_t number, struct routes *routes, const struct batch *batch) {
    cut(step, batch->rows, batch->lengths);
    begin(step);
    memset(step->class_logits, 0, (size_t)(batch->rows * step->model->head.classes) * sizeof *step->class_logits);
    for (int64_t j = 0; j < step->accumulate; ++j) {
        struct pass *pass = begin_micro(step, j, number);
        const int32_t *labels = batch_start(batch, pass, &step->ragged, block_first(batch->rows, step->accumulate, j),
                                            step->micro[j].rows_global);
        if (routes) routes->at = step->micro[j].token_local;
        model_forward(step->model, pass, routes, NULL, 0, labels);
        go_back(step, j);
    }
}

void step_collect(struct step *step) {
    count(step);
    reduce_stats(step);
}

void step_gradients(struct step *step, int64_t number, struct routes *routes, const int32_t *tokens,
                    const int32_t *targets) {
    step_queue(step, number, routes, tokens, targets);
    step_collect(step);
}

double step_load_ratio(const struct step *step) {
    int64_t E = step->model->E;
    double worst = 0;
    for (int64_t i = 0; i < step->model->layers; ++i) {
        const double *load = step->stats.load + i * E;
        double sum = 0, most = 0;
        for (int64_t e = 0; e < E; ++e) {
            sum += load[e];
            most = fmax(most, load[e]);
        }
        if (sum > 0) worst = fmax(worst, most / sum * (double)E);
    }
    return worst;
}

double step_code_perplexity(const struct step *step, int64_t layer) {
    return collapse_perplexity(step->stats.usage + layer * step->codes, step->codes);
}
