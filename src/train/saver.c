#include "train/saver.h"

#include <signal.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/phase.h"
#include "train/checkpoints.h"

void saver_init(struct saver *saver, const struct config *config, struct comm *world) {
    *saver = (struct saver){.config = config, .world = world, .snapshot = snapshot_new(world)};
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

static enum status begin(struct saver *saver, bool best) {
    char path[CHECKPOINT_PATH];
    checkpoints_path(path, saver->config->run.dir, saver->last.step);
    TRY(snapshot_begin(saver->snapshot, path));
    saver->in_flight = true;
    saver->best = best;
    saver->step = saver->last.step;
    atomic_store(&saver->filled, false);
    start_thread(saver);
    return saver->config->checkpoint.async ? STATUS_OK : saver_finish(saver);
}

enum status saver_save(struct saver *saver, struct step *step, struct diagnostics *diagnostics, const struct text *text,
                       const struct progress *progress, bool best) {
    const struct progress *last = &saver->last;
    if (saver->any && last->step == progress->step && last->validated == progress->validated) return STATUS_OK;
    TRY(saver_finish(saver));
    double from = clock_seconds(), before = saver->stall;
    snapshot_clear(saver->snapshot);
    checkpoint_snapshot(saver->snapshot, step, diagnostics, text, progress);
    saver->last = *progress;
    saver->any = true;
    saver->began = from;
    enum status status = begin(saver, best);
    saver->stall = before + clock_seconds() - from;
    return status;
}

bool saver_is_writing(const struct saver *saver) { return saver->in_flight && !atomic_load(&saver->filled); }

enum status saver_finish(struct saver *saver) {
    if (!saver->in_flight) return STATUS_OK;
    phase_enter(PHASE_CHECKPOINT);
    double from = clock_seconds();
    pthread_join(saver->thread, NULL);
    saver->in_flight = false;
    TRY(snapshot_end(saver->snapshot));
    if (saver->world->rank == 0)
        checkpoints_written(saver->config->run.dir, saver->step, saver->best, saver->config->checkpoint.keep);
    double now = clock_seconds();
    saver->stall += now - from;
    saver->bytes = snapshot_bytes(saver->snapshot);
    saver->count++;
    log_info("step %lld: saved%s, %.3g s after it began", (long long)saver->step, saver->best ? " as the best" : "",
             now - saver->began);
    return STATUS_OK;
}
