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
#include "train/evaluate.h"
#include "train/heartbeat.h"
#include "train/optimizer.h"
#include "train/run_folder.h"
#include "train/saver.h"
#include "train/slow.h"

/* The validation text is tried too: too short, it would stop the run only after its first eval.every steps. */
static enum status open_data(struct trainer *t) {
    const struct config *config = t->config;
    struct streams valid;
    enum status status = text_open(&t->text, config);
    if (!status)
        status = streams_init(&t->streams, &t->text, SPLIT_TRAIN, config->train.batch, config->model.segment, 0);
    if (!status && t->text.splits[SPLIT_VALID].symbols)
        status = streams_init(&valid, &t->text, SPLIT_VALID, config->eval.batch, config->eval.segment, 1);
    return status;
}

/* The cursor was written for the text and batch of that time. */
static enum status resume_from(struct trainer *t, const char *path) {
    enum status status = checkpoint_resume(path, &t->step, &t->diagnostics, &t->text, &t->progress);
    int64_t segment = t->progress.segment;
    if (status || (t->progress.step >= 0 && segment >= 0 && segment < t->streams.segments)) return status;
    return comm_agree(t->world, status_fail(STATUS_CHECKPOINT,
                                            "%s: segment: expected one of the %lld of an epoch, found %lld: "
                                            "data.train, train.batch or model.segment is another one",
                                            path, (long long)t->streams.segments, (long long)segment));
}

enum status trainer_init(struct trainer *t, const struct config *config, struct comm *world, const char *resume,
                         const char *init_from) {
    *t = (struct trainer){.config = config, .world = world, .progress = {.best_valid = INFINITY}, .resumed = resume};
    enum status status = comm_agree(world, open_data(t));
    if (status) return status;
    status = model_init(&t->model, config, t->text.vocabulary, 0, world, true);
    if ((status = comm_agree(world, status))) return status;
    step_init(&t->step, &t->model);
    if (config->diagnostics.every) status = diagnostics_init(&t->diagnostics, &t->model, &t->text);
    if ((status = comm_agree(world, status))) return status;
    size_t tokens = (size_t)(t->step.rows * config->model.segment);
    t->tokens = malloc((tokens + 1) * sizeof *t->tokens);
    t->targets = malloc((tokens + 1) * sizeof *t->targets);
    if (!t->tokens || !t->targets) FATAL("out of memory");
    if (resume) return resume_from(t, resume);
    model_start(&t->model);
    return init_from ? checkpoint_init_from(init_from, &t->model, &t->text) : STATUS_OK;
}

void trainer_free(struct trainer *t) {
    if (!t->config) return;
    diagnostics_free(&t->diagnostics);
    step_free(&t->step);
    model_free(&t->model);
    text_close(&t->text);
    free(t->tokens);
    free(t->targets);
    *t = (struct trainer){0};
}

void trainer_read(struct trainer *t) {
    int64_t T = t->config->model.segment;
    for (int64_t j = 0; j < t->step.accumulate; ++j) {
        const struct micro_batch *micro = &t->step.micro[j];
        streams_read(&t->streams, t->progress.segment, micro->first, micro->rows, t->tokens + micro->local * T,
                     t->targets + micro->local * T);
    }
}

/* Past the last whole segment the next epoch begins, with empty memory. */
static void advance(struct trainer *t) {
    t->progress.step++;
    t->progress.validated = false;
    if (++t->progress.segment < t->streams.segments) return;
    t->progress.segment = 0;
    t->progress.epoch++;
    t->step.memory.length = 0;
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
    double seconds_all;
    int64_t steps_all;
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
                (long long)t->progress.step, params->list[i]->name, t->config->run.dir);
    return STATUS_OK;
}

static enum status save(struct run *run) {
    struct trainer *t = run->t;
    phase_enter(PHASE_CHECKPOINT);
    enum status status = check_finite(t);
    if (!status) status = metrics_sync(&run->metrics); /* a run that goes on from here has the lines up to here */
    if ((status = comm_agree(t->world, status))) return status;
    control_saved(&run->control);
    return saver_save(&run->saver, &t->step, &t->diagnostics, &t->text, &t->progress);
}

/* *best: it is the lowest loss so far. Asked to stop meanwhile, it leaves the validation for the run that goes on. */
static enum status validate(struct run *run, bool *best) {
    struct trainer *t = run->t;
    struct evaluation result;
    t->progress.validated = true;
    if (!t->text.splits[SPLIT_VALID].symbols) return STATUS_OK;
    double from = clock_seconds();
    enum status status =
        evaluate(&result, &t->model, &t->text, SPLIT_VALID, t->progress.step, &t->step.arenas, &run->control);
    if (status == STATUS_REQUEUE) {
        t->progress.validated = false;
        run->stop = result.stop;
        return STATUS_OK;
    }
    if (!status && !isfinite(result.loss)) {
        status = check_finite(t);
        if (!status)
            status = status_fail(STATUS_NOT_FINITE, "step %lld: expected a finite validation loss, found %g nats",
                                 (long long)t->progress.step, result.loss);
        status = comm_agree(t->world, status);
    }
    if (status) return status;
    double rate = (double)result.tokens / (clock_seconds() - from);
    struct metrics_line line = {
        .step = t->progress.step, .split = "valid", .loss = result.loss, .tokens = result.tokens, .tokens_per_s = rate};
    *best = result.loss < t->progress.best_valid;
    log_info("step %lld: valid loss %.4f nats, %.4f bpc%s", (long long)t->progress.step, result.loss,
             result.loss / M_LN2, *best ? ", the best so far" : "");
    if (*best) {
        t->progress.best_valid = result.loss;
        t->progress.best_step = t->progress.step;
    }
    return comm_agree(t->world, metrics_write(&run->metrics, &line));
}

static double mean_perplexity(const struct step *step) {
    double sum = 0;
    for (int64_t i = 0; step->codes && i < step->model->layers; ++i) sum += step_code_perplexity(step, i);
    return sum / (double)step->model->layers;
}

/* Fits a terminal of 100 columns. */
static void format_line(char *out, size_t size, const struct run *run, double rate) {
    const struct trainer *t = run->t;
    long left = (long)((double)(t->config->train.steps - t->progress.step) * run->seconds_all / (double)run->steps_all);
    char codes[48] = "";
    if (t->step.codes)
        snprintf(codes, sizeof codes, ", codes %.1f/%lld", mean_perplexity(&t->step), (long long)t->step.codes);
    snprintf(out, size, "step %lld/%lld: loss %.4g nats, %.4g bpc, %.0f tokens/s, load %.2f%s, left %ld:%02ld:%02ld",
             (long long)t->progress.step, (long long)t->config->train.steps, t->step.stats.task,
             t->step.stats.task / M_LN2, rate, step_load_ratio(&t->step), codes, left / 3600, left / 60 % 60,
             left % 60);
}

static enum status report(struct run *run, double lr, double grad_norm) {
    struct trainer *t = run->t;
    int64_t per_step = t->config->train.batch * t->config->model.segment;
    double rate = (double)run->step_tokens / run->step_seconds;
    char text[256];
    format_line(text, sizeof text, run, rate);
    bool due = t->progress.step % t->config->train.log_every == 0 || t->progress.step == t->config->train.steps;
    if (!due) {
        log_progress("%s", text);
        return STATUS_OK;
    }
    log_info("%s", text);
    slow_check(&run->slow, run->step_tokens / per_step);
    run->step_seconds = 0;
    run->step_tokens = 0;
    struct metrics_line line = {
        .step = t->progress.step,
        .split = "train",
        .loss = t->step.stats.task,
        .train = &t->step,
        .lr = lr,
        .grad_norm = grad_norm,
        .tokens = t->progress.step * per_step,
        .tokens_per_s = rate,
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
                       loss ? " nats" : "", where, t->config->run.dir);
}

static enum status train_step(struct run *run, struct observer *observer) {
    struct trainer *t = run->t;
    double from = clock_seconds();
    int64_t number = t->progress.step;
    enum status status = STATUS_OK;
    phase_enter(PHASE_DATA);
    trainer_read(t);
    if (observer && (status = observer->before(observer, &t->step, number))) return status;
    diagnostics_before_step(&t->diagnostics);
    step_queue(&t->step, number, observer ? observer->routes : NULL, t->tokens, t->targets);
    optimizer_update(&t->model, number); /* does nothing where the gradient is not finite */
    step_collect(&t->step);
    diagnostics_after_step(&t->diagnostics, &t->step);
    double grad_norm = optimizer_norm(&t->model);
    if (!isfinite(grad_norm) || !isfinite(t->step.stats.loss)) return comm_agree(t->world, not_finite(t, grad_norm));
    model_after_step(&t->model, number);
    if (observer && (status = observer->after(observer, &t->step, number))) return status;
    advance(t);
    metrics_hashes(&run->metrics, t->progress.step, &t->step);
    run->step_seconds += clock_seconds() - from;
    run->seconds_all += clock_seconds() - from;
    run->step_tokens += t->config->train.batch * t->config->model.segment;
    run->steps_all++;
    return report(run, optimizer_lr(t->config, number), grad_norm);
}

/* Before a checkpoint of the same step: a run that goes on from it has this line. */
static enum status look(struct run *run, bool end) {
    struct trainer *t = run->t;
    int64_t every = t->config->diagnostics.every;
    bool regular = every && t->progress.step % every == 0;
    if (!every || !(regular || end)) return STATUS_OK;
    phase_enter(PHASE_LOOK);
    return diagnostics_line(&t->diagnostics, &run->metrics, &t->step.arenas, t->config->run.dir, t->progress.step,
                            regular);
}

/* What is due between two steps, each at most once, also where a run begins again here. */
static enum status between_steps(struct run *run, bool trained) {
    struct trainer *t = run->t;
    const struct config *config = t->config;
    int64_t step = t->progress.step;
    bool end = step == config->train.steps, best = false;
    struct verdict verdict = control_agree(&run->control, t->world, saver_is_writing(&run->saver));
    run->stop = verdict.stop;
    if (!verdict.writing) TRY(saver_finish(&run->saver));
    if (trained) TRY(look(run, end));
    if (!run->stop && step && !t->progress.validated && (end || step % config->eval.every == 0))
        TRY(validate(run, &best));
    if (best || end || run->stop || verdict.save ||
        (trained && config->checkpoint.every_steps && step % config->checkpoint.every_steps == 0))
        return save(run);
    return STATUS_OK;
}

static enum status run_steps(struct run *run, struct observer *observer) {
    struct trainer *t = run->t;
    enum status status = between_steps(run, false);
    while (!status && !run->stop && t->progress.step < t->config->train.steps) {
        status = train_step(run, observer);
        if (!status) status = between_steps(run, true);
    }
    enum status saved = saver_finish(&run->saver);
    return status ? status : saved;
}

static void summary(const struct run *run) {
    const struct trainer *t = run->t;
    int64_t tokens = run->steps_all * t->config->train.batch * t->config->model.segment;
    if (run->steps_all)
        log_info("done: %lld steps, %lld tokens in %.1f s (%.0f tokens/s), train loss %.4f nats (%.4f bpc)",
                 (long long)run->steps_all, (long long)tokens, run->seconds_all, (double)tokens / run->seconds_all,
                 t->step.stats.task, t->step.stats.task / M_LN2);
    if (run->saver.count)
        log_info("%lld checkpoints, the last with %.1f MB of this rank; training stood still %.3f s for all of them",
                 (long long)run->saver.count, 1e-6 * (double)run->saver.bytes, run->saver.stall);
    if (isfinite(t->progress.best_valid)) {
        char path[CHECKPOINT_PATH];
        checkpoints_path(path, t->config->run.dir, t->progress.best_step);
        log_info("best valid loss %.4f nats (%.4f bpc), of step %lld%s%s", t->progress.best_valid,
                 t->progress.best_valid / M_LN2, (long long)t->progress.best_step,
                 access(path, F_OK) ? ", not of this folder" : ": ", access(path, F_OK) ? "" : path);
    }
    if (run->stop)
        log_info("asked to stop by %s: saved at step %lld, go on with --resume %s", control_reason(run->stop),
                 (long long)t->progress.step, t->config->run.dir);
}

enum status trainer_run(struct trainer *t, bool anew, struct observer *observer) {
    struct run run = {.t = t};
    const struct config *config = t->config;
    int64_t own = run_folder_holds(config, t->resumed);
    comm_broadcast(t->world, &own, sizeof own, 0);
    bool validated = t->progress.validated || !t->progress.step;
    if (t->progress.step > config->train.steps || (t->progress.step == config->train.steps && validated)) {
        log_info("nothing to do: %lld of %lld steps are done", (long long)t->progress.step,
                 (long long)config->train.steps);
        if (t->world->rank == 0 && own) checkpoints_link(config->run.dir, t->progress.step, t->progress.best_step);
        return STATUS_OK;
    }
    TRY(run_folder_begin(config, t->world, t->resumed, anew, &t->progress));
    TRY(comm_agree(t->world, metrics_open(&run.metrics, config->run.dir, t->world->rank, t->progress.step)));
    log_info(
        "%lld parameters in %d tensors, %lld here of %d ranks x %d threads; %d symbols, %lld segments of %lld x %lld tokens an epoch",
        (long long)params_global_size(&t->model.params), t->model.params.count,
        (long long)params_local_size(&t->model.params), t->world->size, omp_get_max_threads(), t->text.vocabulary,
        (long long)t->streams.segments, (long long)config->train.batch, (long long)config->model.segment);
    saver_init(&run.saver, &t->step, &t->diagnostics, &t->text);
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
