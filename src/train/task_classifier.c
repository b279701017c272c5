/* A classifier: the class of a text, from the bytes that its pre-trained model knows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/phase.h"
#include "train/classify.h"
#include "train/task_kinds.h"

enum { POLL_EVERY = 16 }; /* batches */

static const struct examples *of(const struct task *task, enum split split) { return &task->labelled.splits[split]; }

static bool has(const struct task *task, enum split split) { return of(task, split)->count > 0; }

/* ---- The data ---- */

static void alphabet_of_training(struct vocabulary *alphabet, const struct examples *train) {
    bool seen[256] = {false};
    for (int64_t i = 0; i < train->offset[train->count]; ++i) seen[(uint8_t)train->bytes[i]] = true;
    vocabulary_from_bytes(alphabet, seen);
}

static enum status open_data(struct task *task) {
    const struct config *config = task->config;
    TRY(labelled_open(&task->labelled, config));
    TRY(labelled_check_lengths(&task->labelled, config->classifier.length, config->data.too_long));
    if (config->classifier.weights == CLASS_WEIGHTS_BALANCED &&
        !(task->weights = labelled_class_weights(&task->labelled)))
        return status_fail(STATUS_INTERNAL, "out of memory: class weights");
    return batches_init(&task->batches, of(task, SPLIT_TRAIN), config->train.batch, config->classifier.length,
                        (uint64_t)config->run.seed, false);
}

static enum status check_alphabet(const struct vocabulary *alphabet, const char *from) {
    if (alphabet->bytes) return STATUS_OK;
    return status_fail(STATUS_CHECKPOINT, "%s: expected a model of bytes, found one of %lld words", from,
                       (long long)alphabet->size);
}

static enum status classifier_open(struct task *task, const char *from) {
    TRY(comm_agree(task->world, open_data(task)));
    if (from) {
        TRY(checkpoint_read_vocabulary(from, task->world, &task->alphabet));
        TRY(check_alphabet(&task->alphabet, from));
    } else {
        alphabet_of_training(&task->alphabet, of(task, SPLIT_TRAIN));
    }
    task->V = task->alphabet.size + 1; /* `<S>` */
    task->classes = task->labelled.n_classes;
    task->legend = (struct legend){&task->alphabet, task->labelled.classes, task->classes, 0};
    task->per_epoch = batches_per_epoch(&task->batches);
    return STATUS_OK;
}

static void classifier_close(struct task *task) {
    batches_free(&task->batches);
    labelled_free(&task->labelled);
    vocabulary_free(&task->alphabet);
    scores_free(&task->scores);
    text_batch_free(&task->batch);
    free(task->weights);
}

static enum status classifier_begin(struct task *task, struct step *step) {
    const struct config *config = task->config;
    int64_t rows = config->train.batch > config->eval.batch ? config->train.batch : config->eval.batch;
    (void)step;
    text_batch_init(&task->batch, rows, config->classifier.length);
    return STATUS_OK;
}

/* ---- Batches ---- */

void text_batch_init(struct text_batch *batch, int64_t rows, int64_t length) {
    *batch = (struct text_batch){
        .numbers = malloc((size_t)rows * sizeof *batch->numbers),
        .lengths = malloc((size_t)rows * sizeof *batch->lengths),
        .labels = malloc((size_t)rows * sizeof *batch->labels),
        .tokens = malloc((size_t)(rows * length) * sizeof *batch->tokens),
    };
    if (!batch->numbers || !batch->lengths || !batch->labels || !batch->tokens) FATAL("out of memory");
}

void text_batch_free(struct text_batch *batch) {
    free(batch->numbers);
    free(batch->lengths);
    free(batch->labels);
    free(batch->tokens);
}

/* ---- Training ---- */

static void classifier_tell(const struct task *task, struct progress *progress) {
    progress->epoch = task->epoch;
    progress->segment = task->place;
}

static bool classifier_seek(struct task *task, const struct progress *progress) {
    if (progress->epoch < 0 || progress->segment < 0 || progress->segment >= task->per_epoch) return false;
    task->epoch = progress->epoch;
    task->place = progress->segment;
    return true;
}

static void fill(struct task *task, const struct examples *examples, int64_t count) {
    struct text_batch *batch = &task->batch;
    int64_t at = 0;
    for (int64_t i = 0; i < count; ++i) {
        bool truncated;
        int64_t n = examples_encode(examples, batch->numbers[i], &task->alphabet, task->config->classifier.length,
                                    batch->tokens + at, &truncated);
        batch->lengths[i] = (int32_t)n;
        batch->labels[i] = examples->label[batch->numbers[i]];
        at += n;
    }
    batch->batch = (struct batch){count, batch->lengths, batch->tokens, batch->labels, task->weights};
}

static enum status classifier_read(struct task *task, const struct step *step) {
    (void)step;
    fill(task, of(task, SPLIT_TRAIN), batches_read(&task->batches, task->epoch, task->place, task->batch.numbers));
    task->batch_tokens = ragged_tokens(task->batch.lengths, task->batch.batch.rows);
    task->batch_examples = task->batch.batch.rows;
    return STATUS_OK;
}

static void classifier_queue(struct task *task, struct step *step, int64_t number, struct routes *routes) {
    step_queue_batch(step, number, routes, &task->batch.batch);
}

static void classifier_advance(struct task *task, struct step *step) {
    task->correct = 0;
    for (int64_t b = 0; b < task->batch_examples; ++b)
        task->correct +=
            classify_choice(step->class_logits + b * task->classes, task->classes) == task->batch.labels[b];
    if (++task->place < task->per_epoch) return;
    task->place = 0;
    task->epoch++;
}

static int64_t classifier_seen(const struct task *task, int64_t steps) {
    (void)steps;
    return task->epoch * of(task, SPLIT_TRAIN)->count + task->place * task->config->train.batch;
}

/* ---- Figures ---- */

static enum status score_batches(struct task *task, struct score *score, struct model *model, struct batches *batches,
                                 int64_t step, struct pass_memory *arenas, const struct control *control) {
    int64_t C = task->classes, n = batches_per_epoch(batches);
    real *logits = malloc((size_t)(task->config->eval.batch * C) * sizeof *logits);
    if (!logits) FATAL("out of memory");
    for (int64_t j = 0; j < n && !score->stop; ++j) {
        FAULT_POINT("evaluation");
        fill(task, batches->examples, batches_read(batches, 0, j, task->batch.numbers));
        classify(logits, model, &task->batch.batch, step, arenas);
        for (int64_t b = 0; b < task->batch.batch.rows; ++b) {
            const real *row = logits + b * C;
            scores_add(&task->scores, task->batch.labels[b], (int32_t)classify_choice(row, C));
            score->loss += classify_loss(row, C, task->batch.labels[b]);
        }
        score->count += task->batch.batch.rows;
        log_progress("scoring: %lld of %lld examples", (long long)score->count, (long long)batches->examples->count);
        if (control && j % POLL_EVERY == 0) score->stop = control_agree(control, model->world, false).stop;
    }
    free(logits);
    return score->stop ? STATUS_REQUEUE : STATUS_OK;
}

static enum status classifier_score(struct task *task, struct score *score, struct model *model, enum split split,
                                    int64_t step, struct pass_memory *arenas, const struct control *control) {
    struct batches batches;
    const struct config *config = task->config;
    *score = (struct score){0};
    scores_free(&task->scores);
    enum status status =
        batches_init(&batches, of(task, split), config->eval.batch, config->classifier.length, 0, true);
    if (!status) status = scores_init(&task->scores, task->classes);
    if ((status = comm_agree(task->world, status))) return status;
    enum phase before = phase_now();
    phase_enter(PHASE_VALIDATE);
    status = score_batches(task, score, model, &batches, step, arenas, control);
    phase_enter(before);
    batches_free(&batches);
    score->loss /= (double)score->count;
    score->accuracy = scores_accuracy(&task->scores);
    score->macro_f1 = scores_macro_f1(&task->scores);
    score->figure = 1 - score->accuracy;
    return status;
}

static void classifier_describe(const struct task *task) {
    log_info("%lld classes; %lld training, %lld validation, %lld test examples; %lld steps an epoch",
             (long long)task->classes, (long long)of(task, SPLIT_TRAIN)->count, (long long)of(task, SPLIT_VALID)->count,
             (long long)of(task, SPLIT_TEST)->count, (long long)task->per_epoch);
}

static enum status classifier_report(struct task *task, const char *folder) {
    char path[1024];
    scores_log(&task->scores, task->labelled.classes);
    snprintf(path, sizeof path, "%s/confusion.tsv", folder);
    return task->world->rank == 0 ? scores_write(&task->scores, task->labelled.classes, path) : STATUS_OK;
}

const struct task_kind task_classifier = {
    classifier_open,   classifier_close,   classifier_begin,
    classifier_tell,   classifier_seek,    classifier_read,
    classifier_queue,  classifier_advance, has,
    classifier_score,  classifier_seen,    classifier_describe,
    classifier_report,
};
