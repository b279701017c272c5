/* A language model: the next symbol of a text. */
#include <math.h>
#include <stdlib.h>

#include "base/log.h"
#include "train/evaluate.h"
#include "train/task_kinds.h"

static bool has(const struct task *task, enum split split) { return task->text.splits[split].symbols > 0; }

/* The validation and test texts are tried too: too short, they would stop the run only when it comes to them. */
static enum status open_data(struct task *task) {
    const struct config *config = task->config;
    struct streams streams;
    TRY(text_open(&task->text, config));
    TRY(feed_init(&task->feed, &task->text, config->train.batch, config->model.segment, (uint64_t)config->run.seed));
    for (int s = SPLIT_VALID; s < SPLITS; ++s)
        if (has(task, (enum split)s))
            TRY(streams_init(&streams, &task->text, (enum split)s, config->eval.batch, config->eval.segment, 1));
    return STATUS_OK;
}

static enum status language_open(struct task *task, const char *from) {
    (void)from; /* the text has its own symbols; a checkpoint is held against them when it is read */
    TRY(comm_agree(task->world, open_data(task)));
    task->legend = (struct legend){.vocabulary = &task->text.vocabulary, .data = task->text.sum};
    task->V = task->text.vocabulary.size;
    task->per_epoch = task->feed.places;
    return STATUS_OK;
}

static void language_close(struct task *task) {
    feed_free(&task->feed);
    text_close(&task->text);
    free(task->tokens);
    free(task->targets);
}

static enum status language_begin(struct task *task, struct step *step) {
    size_t tokens = (size_t)(step->rows * task->config->model.segment);
    task->tokens = malloc((tokens + 1) * sizeof *task->tokens);
    task->targets = malloc((tokens + 1) * sizeof *task->targets);
    if (!task->tokens || !task->targets) FATAL("out of memory");
    return STATUS_OK;
}

static void language_tell(const struct task *task, struct progress *progress) {
    progress->epoch = task->feed.epoch;
    progress->segment = task->feed.place;
    progress->rest = task->feed.rest;
}

static bool language_seek(struct task *task, const struct progress *progress) {
    return feed_seek(&task->feed, progress->epoch, progress->segment, progress->rest);
}

static enum status language_read(struct task *task, const struct step *step) {
    int64_t L = task->config->model.segment;
    task->batch_tokens = task->config->train.batch * L;
    for (int64_t j = 0; j < step->accumulate; ++j) {
        const struct micro_batch *micro = &step->micro[j];
        TRY(feed_read(&task->feed, micro->first, micro->rows, task->tokens + micro->local * L,
                      task->targets + micro->local * L));
    }
    return STATUS_OK;
}

static void language_queue(struct task *task, struct step *step, int64_t number, struct routes *routes) {
    step_queue(step, number, routes, task->tokens, task->targets);
}

static void language_advance(struct task *task, struct step *step) {
    if (feed_advance(&task->feed)) step->memory.length = 0;
}

static enum status language_score(struct task *task, struct score *score, struct model *model, enum split split,
                                  int64_t step, struct pass_memory *arenas, const struct control *control) {
    struct evaluation result;
    enum status status = evaluate(&result, model, &task->text, split, step, arenas, control);
    *score = (struct score){.loss = result.loss,
                            .count = result.tokens,
                            .accuracy = NAN,
                            .macro_f1 = NAN,
                            .figure = result.loss,
                            .stop = result.stop};
    return status;
}

static int64_t language_seen(const struct task *task, int64_t steps) {
    return steps * task->config->train.batch * task->config->model.segment;
}

static void language_describe(const struct task *task) {
    const struct config *config = task->config;
    log_info("%lld symbols, %lld %s an epoch, steps of %lld x %lld tokens", (long long)task->V,
             (long long)task->per_epoch, task->feed.shuffled ? "sentences" : "steps", (long long)config->train.batch,
             (long long)config->model.segment);
}

const struct task_kind task_language = {
    language_open, language_close, language_begin, language_tell,
    language_seek, language_read,  language_queue, language_advance,
    has,           language_score, language_seen,  language_describe,
    NULL,
};
