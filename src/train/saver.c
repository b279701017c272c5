#include "train/saver.h"

#include <signal.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/phase.h"
#include "train/checkpoints.h"

void saver_init(struct saver *saver, struct step *step, struct diagnostics *diagnostics, const struct legend *legend,
                const struct progress *progress) {
    struct comm *world = step->model->world;
    *saver = (struct saver){.config = step->model->config, .world = world, .snapshot = snapshot_new(world)};
    checkpoint_snapshot(saver->snapshot, step, diagnostics, legend, progress);
}

void saver_has(struct saver *saver, const struct progress *progress) {
    saver->last = *progress;
    saver->any = true;
}

void saver_free(struct saver *saver) {
    CHECK(!saver->in_flight);
    snapshot_free(saver->snapshot);
    *saver = (struct saver){0};
}

static void *fill(void *data) {
    struct saver *saver = data;
    snapshot_fill(saver->snapshot);
    atomic_store(&saver->filled, true);
    return NULL;
}

/* Signals are the main thread's. */
static void start_thread(struct saver *saver) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&saver->thread, NULL, fill, saver)) FATAL("cannot start a thread");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static enum status begin(struct saver *saver) {
    char path[CHECKPOINT_PATH];
    checkpoints_path(path, saver->config->run.dir, saver->last.step);
    TRY(snapshot_begin(saver->snapshot, path));
    saver->in_flight = true;
    atomic_store(&saver->filled, false);
    start_thread(saver);
    return saver->config->checkpoint.async ? STATUS_OK : saver_finish(saver);
}

enum status saver_save(struct saver *saver, struct step *step, struct diagnostics *diagnostics,
                       const struct legend *legend, const struct progress *progress) {
    const struct progress *last = &saver->last;
    if (saver->any && last->step == progress->step && last->validated == progress->validated) return STATUS_OK;
    TRY(saver_finish(saver));
    double from = clock_seconds(), before = saver->stall;
    snapshot_clear(saver->snapshot);
    checkpoint_snapshot(saver->snapshot, step, diagnostics, legend, progress);
    saver_has(saver, progress);
    saver->began = from;
    enum status status = begin(saver);
    saver->stall = before + clock_seconds() - from;
    return status;
}

bool saver_is_writing(const struct saver *saver) { return saver->in_flight && !atomic_load(&saver->filled); }

/* Ranks keep meeting meanwhile, so that none that waits for its disk is taken for lost. */
static void wait_until_filled(struct saver *saver) {
    double from = clock_seconds(), limit = saver->config->parallel.timeout_s;
    struct timespec nap = {.tv_nsec = 1000000};
    for (;;) {
        int64_t writing = saver_is_writing(saver);
        comm_allreduce(saver->world, &writing, 1, COMM_INT64, COMM_MAX);
        if (!writing) return;
        if (clock_seconds() - from > limit && saver_is_writing(saver))
            FATAL_STATUS(STATUS_WRITE, "step %lld: the checkpoint is not on disk after %.0f s of waiting",
                         (long long)saver->last.step, limit);
        nanosleep(&nap, NULL);
        if (nap.tv_nsec < 50000000) nap.tv_nsec *= 2;
    }
}

enum status saver_finish(struct saver *saver) {
    const struct progress *last = &saver->last;
    if (!saver->in_flight) return STATUS_OK;
    phase_enter(PHASE_CHECKPOINT);
    double from = clock_seconds();
    wait_until_filled(saver);
    pthread_join(saver->thread, NULL);
    saver->in_flight = false;
    TRY(snapshot_end(saver->snapshot));
    if (saver->world->rank == 0)
        checkpoints_written(saver->config->run.dir, last->step, last->best_step, saver->config->checkpoint.keep);
    double now = clock_seconds();
    saver->stall += now - from;
    saver->bytes = snapshot_bytes(saver->snapshot);
    saver->count++;
    log_info("step %lld: saved%s, %.3g s after it began", (long long)last->step,
             last->best_step && last->best_step == last->step ? " as the best" : "", now - saver->began);
    return STATUS_OK;
}
