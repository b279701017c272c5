#include "train/trainer.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/block.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/phase.h"
#include "train/checkpoints.h"
#include "train/control.h"
#include "train/heartbeat.h"
#include "train/optimizer.h"
#include "train/run_folder.h"
#include "train/saver.h"
#include "train/slow.h"

/* The cursor was written for the data and batch of that time. */
static enum status resume_from(struct trainer *t, const char *path) {
    TRY(checkpoint_resume(path, &t->step, &t->diagnostics, &t->task.legend, &t->progress));
    return comm_agree(t->world, task_seek(&t->task, &t->progress, path));
}

static void resolve(struct config *config, const struct task *task) {
    int64_t epoch = task->classes ? task->per_epoch : 0;
    if (epoch && config->train.epochs) config->train.steps = config->train.epochs * epoch;
    if (!config->eval.every) config->eval.every = epoch ? epoch : 4000;
    if (epoch) config->diagnostics.every = 0; /* looks are at text */
}

enum status trainer_init(struct trainer *t, const struct config *config, struct comm *world, const char *resume,
                         const char *init_from) {
    *t = (struct trainer){.config = *config, .world = world, .progress = {.best_valid = INFINITY}, .resumed = resume};
    TRY(task_open(&t->task, &t->config, world, resume ? resume : init_from));
    resolve(&t->config, &t->task);
    TRY(comm_agree(world, model_init(&t->model, &t->config, t->task.V, t->task.classes, world, true)));
    step_init(&t->step, &t->model);
    enum status status = task_begin(&t->task, &t->step);
    if (!status && config->diagnostics.every && !t->task.classes)
        status = diagnostics_init(&t->diagnostics, &t->model, &t->task.text);
    TRY(comm_agree(world, status));
    task_tell(&t->task, &t->progress);
    if (resume) return resume_from(t, resume);
    model_start(&t->model);
    return init_from ? checkpoint_init_from(init_from, &t->model, &t->task.legend) : STATUS_OK;
}

void trainer_free(struct trainer *t) {
    if (!t->world) return;
    diagnostics_free(&t->diagnostics);
    step_free(&t->step);
    model_free(&t->model);
    task_close(&t->task);
    *t = (struct trainer){0};
}

/* ---- The run ---- */

struct run {
    struct trainer *t;
    struct metrics metrics;
    struct control control;
    struct saver saver;
    struct slow slow;
    int stop;            /* of struct verdict */
    double step_seconds; /* spent in steps since the last line */
    int64_t step_tokens; /* seen in them */
    int64_t steps_since; /* how many they are */
    double seconds_all;
    int64_t steps_all, tokens_all;
};

/* What is not finite is never saved: the last good checkpoint stays. */
static enum status check_finite(const struct trainer *t) {
    const struct params *params = &t->model.params;
    if (ops->all_finite(params->data, params->total)) return STATUS_OK;
    for (int i = 0; i < params->count; ++i)
        if (!ops->all_finite(params->list[i]->data, params->list[i]->size))
            return status_fail(
                STATUS_NOT_FINITE,
                "step %lld: expected finite parameters, found others in %s; checkpoints in %s are as before",
                (long long)t->progress.step, params->list[i]->name, t->config.run.dir);
    return STATUS_OK;
}

static enum status save(struct run *run) {
    struct trainer *t = run->t;
    phase_enter(PHASE_CHECKPOINT);
    enum status status = check_finite(t);
    if (!status) status = metrics_sync(&run->metrics); /* a run that goes on from here has the lines up to here */
    if ((status = comm_agree(t->world, status))) return status;
    control_saved(&run->control);
    return saver_save(&run->saver, &t->step, &t->diagnostics, &t->task.legend, &t->progress);
}

/* Of a split, after `step` updates. Asked to stop meanwhile, run->stop says so, and there is no score. */
static enum status score(struct run *run, enum split split, int64_t step, struct score *score) {
    struct trainer *t = run->t;
    char figures[TASK_FIGURES];
    double from = clock_seconds();
    enum status status = task_score(&t->task, score, &t->model, split, step, &t->step.arenas, &run->control);
    run->stop = status == STATUS_REQUEUE ? score->stop : run->stop;
    if (status) return status == STATUS_REQUEUE ? STATUS_OK : status;
    score->seconds = clock_seconds() - from;
    if (isfinite(score->loss)) {
        task_figures(&t->task, score->loss, score->accuracy, score->macro_f1, figures);
        log_info("step %lld: %s %s", (long long)step, split_names[split], figures);
        return STATUS_OK;
    }
    status = check_finite(t);
    if (!status)
        status = status_fail(STATUS_NOT_FINITE, "step %lld: expected a finite %s loss, found %g nats", (long long)step,
                             split_names[split], score->loss);
    return comm_agree(t->world, status);
}

static enum status write_score(struct run *run, enum split split, const struct score *score, int64_t best_step) {
    const struct trainer *t = run->t;
    struct metrics_line line = {.step = t->progress.step,
                                .split = split_names[split],
                                .task = &t->task,
                                .loss = score->loss,
                                .accuracy = score->accuracy,
                                .macro_f1 = score->macro_f1,
                                .best_step = best_step,
                                .count = score->count,
                                .per_s = (double)score->count / score->seconds};
    return comm_agree(t->world, metrics_write(&run->metrics, &line));
}

/* *best: it is the lowest figure so far. Asked to stop meanwhile, it leaves the validation for the run that goes on. */
static enum status validate(struct run *run, bool *best) {
    struct trainer *t = run->t;
    struct score valid;
    t->progress.validated = true;
    if (!task_has(&t->task, SPLIT_VALID)) return STATUS_OK;
    TRY(score(run, SPLIT_VALID, t->progress.step, &valid));
    t->progress.validated = !run->stop;
    if (run->stop) return STATUS_OK;
    *best = valid.figure < t->progress.best_valid;
    if (*best) {
        t->progress.best_valid = valid.figure;
        t->progress.best_step = t->progress.step;
    }
    return write_score(run, SPLIT_VALID, &valid, -1);
}

/* The best checkpoint by validation over the test split; the last one where this folder has no best. Its line of
 * metrics comes last: it says that all was done. */
static enum status test(struct run *run) {
    struct trainer *t = run->t;
    struct score result;
    char path[CHECKPOINT_PATH];
    if (!task_has(&t->task, SPLIT_TEST)) return STATUS_OK;
    checkpoints_path(path, t->config.run.dir, t->progress.best_step);
    int64_t there = access(path, F_OK) == 0;
    comm_broadcast(t->world, &there, sizeof there, 0);
    int64_t step = there ? t->progress.best_step : t->progress.step;
    if (step != t->progress.step) TRY(checkpoint_read_parameters(path, &t->model));
    TRY(score(run, SPLIT_TEST, step, &result));
    if (run->stop) return STATUS_OK;
    TRY(task_report(&t->task, t->config.run.dir));
    return write_score(run, SPLIT_TEST, &result, step);
}

static double mean_perplexity(const struct step *step) {
    double sum = 0;
    for (int64_t i = 0; step->codes && i < step->model->layers; ++i) sum += step_code_perplexity(step, i);
    return sum / (double)step->model->layers;
}

/* Fits a terminal of 100 columns. */
static void format_line(char *out, size_t size, const struct run *run, double rate) {
    const struct trainer *t = run->t;
    long left = (long)((double)(t->config.train.steps - t->progress.step) * run->seconds_all / (double)run->steps_all);
    char codes[48] = "", figures[TASK_FIGURES];
    task_figures(&t->task, t->step.stats.task, task_accuracy(&t->task), NAN, figures);
    if (t->step.codes)
        snprintf(codes, sizeof codes, ", codes %.1f/%lld", mean_perplexity(&t->step), (long long)t->step.codes);
    snprintf(out, size, "step %lld/%lld: %s, %.0f tokens/s, load %.2f%s, left %ld:%02ld:%02ld",
             (long long)t->progress.step, (long long)t->config.train.steps, figures, rate, step_load_ratio(&t->step),
             codes, left / 3600, left / 60 % 60, left % 60);
}

static enum status report(struct run *run, double lr, double grad_norm) {
    struct trainer *t = run->t;
    double rate = (double)run->step_tokens / run->step_seconds;
    char text[256];
    format_line(text, sizeof text, run, rate);
    bool due = t->progress.step % t->config.train.log_every == 0 || t->progress.step == t->config.train.steps;
    if (!due) {
        log_progress("%s", text);
        return STATUS_OK;
    }
    log_info("%s", text);
    slow_check(&run->slow, run->steps_since);
    run->step_seconds = 0;
    run->step_tokens = run->steps_since = 0;
    struct metrics_line line = {
        .step = t->progress.step,
        .split = "train",
        .task = &t->task,
        .loss = t->step.stats.task,
        .accuracy = task_accuracy(&t->task),
        .macro_f1 = NAN,
        .train = &t->step,
        .lr = lr,
        .grad_norm = grad_norm,
        .count = task_seen(&t->task, t->progress.step),
        .per_s = rate,
        .best_step = -1,
    };
    return comm_agree(t->world, metrics_write(&run->metrics, &line));
}

static enum status not_finite(const struct trainer *t, double grad_norm) {
    const struct step_stats *stats = &t->step.stats;
    const struct params *params = &t->model.params;
    char where[PARAM_NAME + 16] = "the embeddings";
    bool loss = !isfinite(stats->loss);
    if (stats->not_finite == t->model.layers)
        snprintf(where, sizeof where, "the logits");
    else if (stats->not_finite >= 0)
        snprintf(where, sizeof where, "layer %lld", (long long)stats->not_finite);
    if (stats->not_finite > t->model.layers) { /* the loss is finite, or overflows as a sum: the gradients tell */
        snprintf(where, sizeof where, "the sum over all gradients");
        for (int i = params->count - 1; i >= 0; --i)
            if (!ops->all_finite(params->list[i]->grad, params->list[i]->size))
                snprintf(where, sizeof where, "the gradient of %s", params->list[i]->name);
    }
    return status_fail(STATUS_NOT_FINITE,
                       "step %lld: expected a finite %s, found %g%s: the first value that is not finite is in %s; "
                       "checkpoints in %s are as before",
                       (long long)t->progress.step + 1, loss ? "loss" : "gradient", loss ? stats->loss : grad_norm,
                       loss ? " nats" : "", where, t->config.run.dir);
}

static enum status train_step(struct run *run, struct observer *observer) {
    struct trainer *t = run->t;
    double from = clock_seconds();
    int64_t number = t->progress.step;
    enum status status = STATUS_OK;
    task_read(&t->task, &t->step);
    if (observer && (status = observer->before(observer, &t->step, number))) return status;
    diagnostics_before_step(&t->diagnostics);
    task_queue(&t->task, &t->step, number, observer ? observer->routes : NULL);
    optimizer_update(&t->model, number); /* does nothing where the gradient is not finite */
    step_collect(&t->step);
    diagnostics_after_step(&t->diagnostics, &t->step);
    double grad_norm = optimizer_norm(&t->model);
    if (!isfinite(grad_norm) || !isfinite(t->step.stats.loss)) return comm_agree(t->world, not_finite(t, grad_norm));
    model_after_step(&t->model, number);
    if (observer && (status = observer->after(observer, &t->step, number))) return status;
    task_advance(&t->task, &t->step);
    task_tell(&t->task, &t->progress);
    t->progress.step++;
    t->progress.validated = false;
    metrics_hashes(&run->metrics, t->progress.step, &t->step);
    run->step_seconds += clock_seconds() - from;
    run->seconds_all += clock_seconds() - from;
    run->step_tokens += t->task.batch_tokens;
    run->tokens_all += t->task.batch_tokens;
    run->steps_since++;
    run->steps_all++;
    return report(run, optimizer_lr(&t->config, number), grad_norm);
}

/* Before a checkpoint of the same step: a run that goes on from it has this line. */
static enum status look(struct run *run, bool end) {
    struct trainer *t = run->t;
    int64_t every = t->config.diagnostics.every;
    bool regular = every && t->progress.step % every == 0;
    if (!every || !(regular || end)) return STATUS_OK;
    phase_enter(PHASE_LOOK);
    return diagnostics_line(&t->diagnostics, &run->metrics, &t->step.arenas, t->config.run.dir, t->progress.step,
                            regular);
}

/* All steps are done, or enough validations in a row found nothing better. */
static bool is_over(const struct trainer *t) {
    const struct config *config = &t->config;
    int64_t patience = config->classifier.patience * config->eval.every;
    if (t->progress.step >= config->train.steps) return true;
    return t->task.classes && patience && t->progress.validated && isfinite(t->progress.best_valid) &&
           t->progress.step - t->progress.best_step >= patience;
}

/* What is due between two steps, each at most once, also where a run begins again here. */
static enum status between_steps(struct run *run, bool trained) {
    struct trainer *t = run->t;
    const struct config *config = &t->config;
    int64_t step = t->progress.step;
    bool last = step == config->train.steps, best = false;
    struct verdict verdict = control_agree(&run->control, t->world, saver_is_writing(&run->saver));
    run->stop = verdict.stop;
    if (!verdict.writing) TRY(saver_finish(&run->saver));
    if (trained) TRY(look(run, last));
    if (!run->stop && step && !t->progress.validated && (last || step % config->eval.every == 0))
        TRY(validate(run, &best));
    if (best || is_over(t) || run->stop || verdict.save ||
        (trained && config->checkpoint.every_steps && step % config->checkpoint.every_steps == 0))
        return save(run);
    return STATUS_OK;
}

static enum status run_steps(struct run *run, struct observer *observer) {
    struct trainer *t = run->t;
    enum status status = between_steps(run, false);
    while (!status && !run->stop && !is_over(t)) {
        status = train_step(run, observer);
        if (!status) status = between_steps(run, true);
    }
    enum status saved = saver_finish(&run->saver);
    if (!status && !saved && !run->stop && t->progress.step) return test(run);
    return status ? status : saved;
}

static void summary(const struct run *run) {
    const struct trainer *t = run->t;
    char figures[TASK_FIGURES];
    task_figures(&t->task, t->step.stats.task, task_accuracy(&t->task), NAN, figures);
    if (run->steps_all)
        log_info("done: %lld steps, %lld tokens in %.1f s (%.0f tokens/s), train %s", (long long)run->steps_all,
                 (long long)run->tokens_all, run->seconds_all, (double)run->tokens_all / run->seconds_all, figures);
    if (run->saver.count)
        log_info("%lld checkpoints, the last with %.1f MB of this rank; training stood still %.3f s for all of them",
                 (long long)run->saver.count, 1e-6 * (double)run->saver.bytes, run->saver.stall);
    if (isfinite(t->progress.best_valid)) {
        char path[CHECKPOINT_PATH];
        checkpoints_path(path, t->config.run.dir, t->progress.best_step);
        task_best(&t->task, t->progress.best_valid, figures);
        log_info("best valid %s, of step %lld%s%s", figures, (long long)t->progress.best_step,
                 access(path, F_OK) ? ", not of this folder" : ": ", access(path, F_OK) ? "" : path);
    }
    if (run->stop)
        log_info("asked to stop by %s: saved at step %lld, go on with --resume %s", control_reason(run->stop),
                 (long long)t->progress.step, t->config.run.dir);
}

/* A run that was over before: all is done but perhaps its test, which a lost job may have missed. */
static bool is_done(const struct trainer *t, bool own) {
    if (!is_over(t) || (t->progress.step && !t->progress.validated)) return false;
    if (!own || !t->progress.step || !task_has(&t->task, SPLIT_TEST)) return true;
    int64_t tested = t->world->rank == 0 && metrics_has(t->config.run.dir, t->progress.step, "test");
    comm_broadcast(t->world, &tested, sizeof tested, 0);
    return tested;
}

enum status trainer_run(struct trainer *t, bool anew, struct observer *observer) {
    struct run run = {.t = t};
    const struct config *config = &t->config;
    int64_t own = run_folder_holds(config, t->resumed);
    comm_broadcast(t->world, &own, sizeof own, 0);
    if (is_done(t, own)) {
        log_info("nothing to do: %lld of %lld steps are done", (long long)t->progress.step,
                 (long long)config->train.steps);
        if (t->world->rank == 0 && own) checkpoints_link(config->run.dir, t->progress.step, t->progress.best_step);
        return STATUS_OK;
    }
    TRY(run_folder_begin(config, t->world, t->resumed, anew, &t->progress));
    TRY(comm_agree(t->world, metrics_open(&run.metrics, config->run.dir, t->world->rank, t->progress.step)));
    log_info("%lld parameters in %d tensors, %lld here of %d ranks x %d threads",
             (long long)params_global_size(&t->model.params), t->model.params.count,
             (long long)params_local_size(&t->model.params), t->world->size, omp_get_max_threads());
    task_describe(&t->task);
    saver_init(&run.saver, &t->step, &t->diagnostics, &t->task.legend, &t->progress);
    if (own) saver_has(&run.saver, &t->progress);
    control_start(&run.control, config);
    slow_init(&run.slow, t->world, t->step.rows, block_count(config->eval.batch, t->world->size, t->world->rank));
    heartbeat_start(config->run.dir, t->world->rank);
    enum status status = run_steps(&run, observer);
    heartbeat_end(!status && !run.stop);
    metrics_close(&run.metrics);
    if (!status) summary(&run);
    slow_free(&run.slow);
    saver_free(&run.saver);
    return !status && run.stop ? STATUS_REQUEUE : status;
}
