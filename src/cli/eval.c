#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/loaded.h"
#include "data/noise.h"
#include "train/evaluate.h"
#include "train/start.h"
#include "train/task.h"

static enum status find_split(const char *name, enum split *split) {
    for (int i = 0; i < SPLITS; ++i)
        if (!strcmp(split_names[i], name)) {
            *split = (enum split)i;
            return STATUS_OK;
        }
    return status_fail(STATUS_CONFIG, "--split: expected train, valid or test, found '%s'", name);
}

static enum status run(struct loaded *loaded, enum split split, const struct arguments *arguments) {
    struct pass_memory arenas = {0};
    struct evaluation result;
    char noise[64] = "";
    if (arguments->noise > 0)
        snprintf(noise, sizeof noise, ", noise %g (seed %lld)", arguments->noise, (long long)arguments->seed);
    enum status status = evaluate(&result, &loaded->model, &loaded->text, split, loaded->step, &arenas, NULL);
    if (!status)
        log_info("%s: loss %.6f nats, %.4f %s, perplexity %.3f, %lld tokens, after step %lld%s", split_names[split],
                 result.loss, result.loss / M_LN2, loaded->vocabulary.bytes ? "bpc" : "bits a word", exp(result.loss),
                 (long long)result.tokens, (long long)loaded->step, noise);
    if (!status && !isfinite(result.loss))
        status =
            comm_agree(loaded->model.world, status_fail(STATUS_NOT_FINITE, "%s: expected a finite loss, found %g nats",
                                                        arguments->files[0], result.loss));
    pass_memory_free(&arenas);
    return status;
}

/* ---- A classifier ---- */

struct judged {
    struct config config;
    struct task task;
    struct model model;
    char *names, **classes;
    int64_t n_classes, step;
};

/* The labels of the data mean what they meant to the model. */
static enum status check_classes(const struct judged *j, const char *path) {
    bool same = j->n_classes == j->task.classes;
    for (int64_t c = 0; c < j->n_classes && same; ++c) same = !strcmp(j->classes[c], j->task.legend.classes[c]);
    if (same) return STATUS_OK;
    return status_fail(STATUS_DATA, "data.train: expected the %lld classes of %s, found %lld, or others",
                       (long long)j->n_classes, path, (long long)j->task.classes);
}

static enum status judged_open(struct judged *j, const char *path, struct comm *world) {
    TRY(start_operations(&j->config, world));
    log_info("%s", start_description());
    TRY(checkpoint_read_classes(path, world, &j->names, &j->classes, &j->n_classes));
    TRY(task_open(&j->task, &j->config, world, path));
    TRY(comm_agree(world, check_classes(j, path)));
    TRY(comm_agree(world, model_init(&j->model, &j->config, j->task.V, j->task.classes, world, false)));
    return checkpoint_read_parameters(path, &j->model);
}

static enum status judge(struct judged *j, enum split split) {
    struct pass_memory arenas = {0};
    struct score score;
    char figures[TASK_FIGURES];
    if (!task_has(&j->task, split))
        return comm_agree(j->model.world,
                          status_fail(STATUS_DATA, "data.%s: expected examples, found none", split_names[split]));
    TRY(task_begin(&j->task, NULL));
    enum status status = task_score(&j->task, &score, &j->model, split, j->step, &arenas, NULL);
    if (!status) {
        task_figures(&j->task, score.loss, score.accuracy, score.macro_f1, figures);
        log_info("%s: %s, %lld examples, after step %lld", split_names[split], figures, (long long)score.count,
                 (long long)j->step);
        scores_log(&j->task.scores, j->task.legend.classes);
    }
    pass_memory_free(&arenas);
    return status;
}

static void judged_free(struct judged *j) {
    model_free(&j->model);
    task_close(&j->task);
    free(j->classes);
    free(j->names);
}

/* ---- Either ---- */

static enum status eval_language(const struct arguments *arguments, enum split split, struct comm *world) {
    struct loaded loaded = {0};
    enum status status = loaded_open(&loaded, arguments, world);
    if (!status && arguments->noise > 0)
        status = comm_agree(world, noise_split(&loaded.text, split, arguments->noise, arguments->seed));
    if (!status) status = run(&loaded, split, arguments);
    loaded_free(&loaded);
    return status;
}

enum status cli_eval(const struct arguments *arguments, struct comm *world) {
    struct judged j = {.task = {0}};
    struct vocabulary vocabulary;
    enum split split = SPLIT_TEST;
    const char *path = arguments->files[0];
    TRY(comm_agree(world, find_split(arguments->split, &split)));
    enum status status = checkpoint_read_config(path, world, &j.config, arguments->overrides, arguments->n_overrides,
                                                &vocabulary, &j.step);
    vocabulary_free(&vocabulary);
    if (status) return status;
    if (j.config.model.kind == MODEL_LM) return eval_language(arguments, split, world);
    if (arguments->noise > 0)
        return comm_agree(world, status_fail(STATUS_CONFIG, "--noise: expected a language model, found a classifier"));
    status = judged_open(&j, path, world);
    if (!status) status = judge(&j, split);
    judged_free(&j);
    return status;
}
