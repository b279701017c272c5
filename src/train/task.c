#include "train/task.h"

#include <math.h>
#include <stdio.h>

#include "base/log.h"
#include "base/phase.h"
#include "train/task_kinds.h"

/* A language model reads text, a classifier labelled texts. */
static enum status check_kinds(const struct config *config) {
    bool classifier = config->model.kind == MODEL_CLASSIFIER;
    if (classifier == (config->data.kind >= DATA_CSV)) return STATUS_OK;
    return status_fail(STATUS_CONFIG, "data.kind: expected %s with model.kind: %s",
                       classifier ? "csv, tsv, trees or imdb" : "enwik8, text8, text, words or lm1b",
                       classifier ? "classifier" : "lm");
}

enum status task_open(struct task *task, const struct config *config, struct comm *world, const char *from) {
    *task = (struct task){.config = config, .world = world};
    TRY(comm_agree(world, check_kinds(config)));
    task->kind = config->model.kind == MODEL_CLASSIFIER ? &task_classifier : &task_language;
    return task->kind->open(task, from);
}

void task_close(struct task *task) {
    if (task->kind) task->kind->close(task);
    *task = (struct task){0};
}

enum status task_begin(struct task *task, struct step *step) { return task->kind->begin(task, step); }

void task_tell(const struct task *task, struct progress *progress) { task->kind->tell(task, progress); }

enum status task_seek(struct task *task, const struct progress *progress, const char *path) {
    if (progress->step >= 0 && task->kind->seek(task, progress)) return STATUS_OK;
    return status_fail(
        STATUS_CHECKPOINT,
        "%s: segment: expected one of the %lld of an epoch, found %lld: the training data, train.batch or "
        "model.segment is another one",
        path, (long long)task->per_epoch, (long long)progress->segment);
}

void task_read(struct task *task, const struct step *step) {
    phase_enter(PHASE_DATA);
    enum status status = task->kind->read(task, step);
    if (status) FATAL_STATUS(status, "%s", status_message()); /* the other ranks are on their way */
}

void task_queue(struct task *task, struct step *step, int64_t number, struct routes *routes) {
    task->kind->queue(task, step, number, routes);
}

void task_advance(struct task *task, struct step *step) { task->kind->advance(task, step); }

bool task_has(const struct task *task, enum split split) { return task->kind->has(task, split); }

enum status task_score(struct task *task, struct score *score, struct model *model, enum split split, int64_t step,
                       struct pass_memory *arenas, const struct control *control) {
    return task->kind->score(task, score, model, split, step, arenas, control);
}

void task_figures(const struct task *task, double loss, double accuracy, double macro_f1, char out[TASK_FIGURES]) {
    int n = snprintf(out, TASK_FIGURES, "loss %.4f nats", loss);
    if (!task->classes && task->legend.vocabulary->bytes)
        snprintf(out + n, (size_t)(TASK_FIGURES - n), ", %.4f bpc", loss / M_LN2);
    else if (!task->classes)
        snprintf(out + n, (size_t)(TASK_FIGURES - n), ", perplexity %.2f", exp(loss));
    else if (isnan(macro_f1))
        snprintf(out + n, (size_t)(TASK_FIGURES - n), ", accuracy %.2f%%", 100 * accuracy);
    else
        snprintf(out + n, (size_t)(TASK_FIGURES - n), ", accuracy %.2f%%, macro-F1 %.2f%%", 100 * accuracy,
                 100 * macro_f1);
}

void task_best(const struct task *task, double figure, char out[TASK_FIGURES]) {
    if (task->classes)
        snprintf(out, TASK_FIGURES, "accuracy %.2f%%", 100 * (1 - figure));
    else
        task_figures(task, figure, NAN, NAN, out);
}

double task_accuracy(const struct task *task) {
    return task->classes ? (double)task->correct / (double)task->batch_examples : NAN;
}

int64_t task_seen(const struct task *task, int64_t steps) { return task->kind->seen(task, steps); }

void task_describe(const struct task *task) { task->kind->describe(task); }

enum status task_report(struct task *task, const char *folder) {
    return task->kind->report ? comm_agree(task->world, task->kind->report(task, folder)) : STATUS_OK;
}
