/* A classifier: fine-tuning and inference on random texts, each of classifier.length symbols. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "train/classify.h"
#include "train/op_times.h"
#include "train/optimizer.h"
#include "train/task.h"

struct bench {
    struct step *step;
    struct text_batch texts;
    real *logits; /* [rows, C] */
};

static void draw(struct bench *b, int64_t number) {
    const struct model *model = b->step->model;
    int64_t rows = model->config->train.batch, length = model->config->classifier.length;
    for (int64_t i = 0; i < rows * length; ++i) {
        uint32_t words[4];
        rng_words(words, rng_place(1, number, RNG_SAMPLE, 0, 0), (uint32_t)i, 0);
        b->texts.tokens[i] = (int32_t)(words[0] % (uint32_t)model->V);
        b->texts.labels[i / length] = (int32_t)(words[1] % (uint32_t)model->head.classes);
        b->texts.lengths[i / length] = (int32_t)length;
    }
    b->texts.batch = (struct batch){rows, b->texts.lengths, b->texts.tokens, b->texts.labels, NULL};
}

static void tune(struct bench *b, int64_t number) {
    step_queue_batch(b->step, number, NULL, &b->texts.batch);
    optimizer_update(b->step->model, number);
    step_collect(b->step);
    model_after_step(b->step->model, number);
}

static void infer(struct bench *b, int64_t number) {
    classify(b->logits, b->step->model, &b->texts.batch, number, &b->step->arenas);
}

static double timed(struct bench *b, int64_t number, void (*run)(struct bench *b, int64_t number)) {
    draw(b, number);
    comm_barrier(b->step->model->world);
    double from = clock_seconds();
    run(b, number);
    device_finish_all();
    comm_barrier(b->step->model->world);
    return clock_seconds() - from;
}

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void measure(struct bench *b, const char *what, int64_t steps, void (*run)(struct bench *b, int64_t number)) {
    struct comm *world = b->step->model->world;
    struct op_times times;
    double *seconds = malloc((size_t)steps * sizeof *seconds);
    if (!seconds) FATAL("out of memory");
    for (int64_t i = 0; i < 2; ++i) timed(b, i, run);
    for (int64_t i = 0; i < steps; ++i) seconds[i] = timed(b, 2 + i, run);
    op_times_begin(&times);
    timed(b, 2 + steps, run);
    op_times_end(&times);
    double operations = op_times_sum(&times).operations,
           tokens = (double)ragged_tokens(b->texts.lengths, b->texts.batch.rows);
    comm_allreduce(world, &operations, 1, COMM_DOUBLE, COMM_SUM);
    qsort(seconds, (size_t)steps, sizeof *seconds, compare);
    double median = seconds[steps / 2];
    log_info("%s: %.3f MFLOP a token; median of %lld: %.4f s, %.0f tokens/s", what, operations / tokens / 1e6,
             (long long)steps, median, tokens / median);
    op_times_free(&times);
    free(seconds);
}

void bench_texts(struct step *step, int64_t steps) {
    const struct config *config = step->model->config;
    struct bench b = {.step = step};
    text_batch_init(&b.texts, config->train.batch, config->classifier.length);
    b.logits = malloc((size_t)(config->train.batch * step->model->head.classes) * sizeof *b.logits);
    if (!b.logits) FATAL("out of memory");
    log_info("%lld texts of %lld symbols, %lld classes", (long long)config->train.batch,
             (long long)config->classifier.length, (long long)step->model->head.classes);
    measure(&b, "fine-tuning", steps, tune);
    measure(&b, "inference", steps, infer);
    text_batch_free(&b.texts);
    free(b.logits);
}
