#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/input.h"
#include "train/checkpoint.h"
#include "train/classify.h"
#include "train/start.h"
#include "train/task.h"

enum { ROWS = 32 }; /* lines that go through the model together */

struct predictor {
    struct config config;
    struct model model;
    struct vocabulary vocabulary;
    char *names, **classes; /* [C] into names */
    int64_t n_classes;
    int64_t step;
    struct input input;
    struct text_batch batch;
    struct pass_memory arenas;
    real *logits; /* [ROWS, C] */
    int64_t lines, truncated;
};

static enum status predictor_open(struct predictor *p, const struct arguments *arguments, struct comm *world) {
    const char *path = arguments->files[0];
    TRY(checkpoint_read_config(path, world, &p->config, arguments->overrides, arguments->n_overrides, &p->vocabulary,
                               &p->step));
    if (p->config.model.kind != MODEL_CLASSIFIER)
        return comm_agree(world, status_fail(STATUS_CHECKPOINT,
                                             "%s: expected a classifier, found a language model: "
                                             "vqmoe finetune makes one of it",
                                             path));
    if (!p->vocabulary.bytes)
        return comm_agree(world, status_fail(STATUS_CHECKPOINT, "%s: expected a model of bytes, found words", path));
    TRY(checkpoint_read_classes(path, world, &p->names, &p->classes, &p->n_classes));
    TRY(start_operations(&p->config, world));
    TRY(comm_agree(world, model_init(&p->model, &p->config, p->vocabulary.size + 1, p->n_classes, world, false)));
    TRY(checkpoint_read_parameters(path, &p->model));
    text_batch_init(&p->batch, ROWS, p->config.classifier.length);
    p->logits = malloc((size_t)(ROWS * p->n_classes) * sizeof *p->logits);
    if (!p->logits) FATAL("out of memory");
    return STATUS_OK;
}

static void predictor_free(struct predictor *p) {
    input_free(&p->input);
    text_batch_free(&p->batch);
    vocabulary_free(&p->vocabulary);
    free(p->classes);
    free(p->names);
    model_free(&p->model);
    pass_memory_free(&p->arenas);
    free(p->logits);
}

/* Encodes the lines that are there, at most ROWS, the last one without its end where there is no more; on rank 0.
 * Returns how many. */
static int64_t take_lines(struct predictor *p) {
    struct input *in = &p->input;
    int64_t count = 0, at = 0;
    size_t used = 0;
    while (count < ROWS && used < in->size) {
        const char *line = in->bytes + used, *stop = memchr(line, '\n', in->size - used);
        if (!stop && !in->end) break;
        size_t size = stop ? (size_t)(stop - line) : in->size - used;
        bool truncated;
        int64_t n = text_encode(line, (int64_t)size, &p->vocabulary, p->config.classifier.length, p->batch.tokens + at,
                                &truncated);
        p->batch.lengths[count++] = (int32_t)n;
        p->truncated += truncated;
        at += n;
        used += size + (stop != NULL);
    }
    if (used) input_use(in, used);
    return count;
}

/* To all ranks. */
static void share(struct predictor *p, int64_t count) {
    struct text_batch *batch = &p->batch;
    batch->batch = (struct batch){.rows = count, .lengths = batch->lengths, .tokens = batch->tokens};
    comm_broadcast(p->model.world, batch->lengths, count * (int64_t)sizeof *batch->lengths, 0);
    comm_broadcast(p->model.world, batch->tokens, ragged_tokens(batch->lengths, count) * (int64_t)sizeof *batch->tokens,
                   0);
}

static void print(const struct predictor *p, int64_t count) {
    int64_t C = p->n_classes;
    for (int64_t i = 0; i < count; ++i) {
        int64_t choice = classify_choice(p->logits + i * C, C);
        printf("%s\t%.4f\n", p->classes[choice], exp(-classify_loss(p->logits + i * C, C, (int32_t)choice)));
    }
    fflush(stdout);
}

/* A line is answered as soon as it is there. */
static void predict(struct predictor *p) {
    struct comm *world = p->model.world;
    double seconds = 0;
    for (;;) {
        int64_t count = world->rank == 0 ? take_lines(p) : 0;
        comm_broadcast(world, &count, sizeof count, 0);
        if (!count && p->input.end) break;
        if (!count) {
            input_more(&p->input, world);
            continue;
        }
        double from = clock_seconds();
        share(p, count);
        classify(p->logits, &p->model, &p->batch.batch, p->step, &p->arenas);
        seconds += clock_seconds() - from;
        p->lines += count;
        if (world->rank == 0) print(p, count);
    }
    if (p->truncated && world->rank == 0)
        log_warning("%lld of %lld lines are longer than %lld bytes: only their ends count", (long long)p->truncated,
                    (long long)p->lines, (long long)p->config.classifier.length - 1);
    if (world->rank == 0 && p->lines)
        fprintf(stderr, "%lld lines, %.1f a second\n", (long long)p->lines, (double)p->lines / seconds);
}

/* Answers are on standard output, everything else on standard error. */
enum status cli_predict(const struct arguments *arguments, struct comm *world) {
    struct predictor *p = calloc(1, sizeof *p);
    if (!p) FATAL("out of memory");
    enum status status = predictor_open(p, arguments, world);
    if (!status) predict(p);
    predictor_free(p);
    free(p);
    return status;
}
