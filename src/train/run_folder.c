#include "train/run_folder.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/files.h"
#include "base/lock.h"
#include "base/log.h"
#include "train/checkpoints.h"
#include "train/diagnostics.h"

/* Those of ranks that this start does not have would grow old. */
static void remove_heartbeats(const char *dir, int ranks) {
    char path[1024];
    for (int rank = ranks;; ++rank) {
        snprintf(path, sizeof path, "%s/heartbeat/rank-%04d", dir, rank);
        if (unlink(path)) return;
    }
}

static enum status enter(struct run_folder *folder, const struct config *config, int ranks) {
    const char *names[] = {"", "/checkpoints", "/logs", "/heartbeat", "/routing"}, *dir = config->run.dir;
    char path[1024];
    for (int i = 0; i < (config->diagnostics.every ? 5 : 4); ++i) {
        snprintf(path, sizeof path, "%s%s", dir, names[i]);
        if (!files_make_folder(path))
            return status_fail(STATUS_WRITE, "run.dir: cannot create %s: %s", path, strerror(errno));
    }
    snprintf(path, sizeof path, "%s/checkpoints", dir);
    if (access(path, W_OK)) return status_fail(STATUS_WRITE, "run.dir: cannot write in %s: %s", path, strerror(errno));
    snprintf(path, sizeof path, "%s/lock", dir);
    TRY(lock_take(&folder->lock, path, "run.dir", fmin(180, config->parallel.timeout_s / 2)));
    remove_heartbeats(dir, ranks);
    return STATUS_OK;
}

enum status run_folder_enter(struct run_folder *folder, const struct config *config, struct comm *world) {
    char logs[1024];
    folder->lock = -1;
    TRY(comm_agree(world, world->rank ? STATUS_OK : enter(folder, config, world->size)));
    snprintf(logs, sizeof logs, "%s/logs", config->run.dir);
    return comm_agree(world, log_open(logs));
}

static enum status write_configuration(const struct config *config) {
    char path[1024];
    snprintf(path, sizeof path, "%s/config.yaml", config->run.dir);
    FILE *file = fopen(path, "w");
    if (!file) return status_fail(STATUS_WRITE, "%s: cannot write: %s", path, strerror(errno));
    config_print_yaml(config, file);
    return fclose(file) ? status_fail(STATUS_WRITE, "%s: cannot write: %s", path, strerror(errno)) : STATUS_OK;
}

bool run_folder_holds(const struct config *config, const char *from) {
    char path[1024], here[PATH_MAX], there[PATH_MAX];
    const char *slash = from ? strrchr(from, '/') : NULL;
    snprintf(path, sizeof path, "%s/checkpoints", config->run.dir);
    if (!slash || !realpath(path, here)) return false;
    snprintf(path, sizeof path, "%.*s", (int)(slash - from), from);
    return realpath(path, there) && !strcmp(here, there);
}

static enum status begin(const struct config *config, const char *from, bool anew, const struct progress *progress) {
    const char *dir = config->run.dir;
    char path[1024];
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    if (!anew && !run_folder_holds(config, from) && access(path, F_OK) == 0)
        return status_fail(
            STATUS_CONFIG,
            "run.dir: expected a folder without a run, found %s: remove it, set another run.dir, or go on "
            "with --resume %s",
            path, dir);
    TRY(diagnostics_cut_back(dir, progress->step));
    TRY(checkpoints_put_aside(dir, progress->step));
    checkpoints_link(dir, progress->step, progress->best_step);
    return write_configuration(config);
}

enum status run_folder_begin(const struct config *config, struct comm *world, const char *from, bool anew,
                             const struct progress *progress) {
    return comm_agree(world, world->rank ? STATUS_OK : begin(config, from, anew, progress));
}

void run_folder_leave(struct run_folder *folder) {
    if (folder->lock > 0) close(folder->lock);
    folder->lock = -1;
}
