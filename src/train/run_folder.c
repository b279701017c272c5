#include "train/run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "train/checkpoints.h"
#include "train/diagnostics.h"

/* Creates a folder and those above it. */
static enum status make_folder(const char *path) {
    char part[1024];
    snprintf(part, sizeof part, "%s", path);
    for (char *c = part + 1;; ++c) {
        if (*c && *c != '/') continue;
        char kept = *c;
        *c = '\0';
        if (mkdir(part, 0777) && errno != EEXIST)
            return status_fail(STATUS_WRITE, "run.dir: cannot create %s: %s", part, strerror(errno));
        *c = kept;
        if (!kept) return STATUS_OK;
    }
}

/* Who holds it, for the message of another one. */
static void sign(int lock) {
    char text[256], host[65] = "?";
    const char *job = getenv("SLURM_JOB_ID");
    time_t now = time(NULL);
    gethostname(host, sizeof host);
    int length = snprintf(text, sizeof text, "host %s, process %d%s%s, since %.24s\n", host, (int)getpid(),
                          job ? ", Slurm job " : "", job ? job : "", ctime(&now));
    /* On a full disk the owner stays unnamed, and what matters fails next. */
    if (ftruncate(lock, 0) || pwrite(lock, text, (size_t)length, 0) != length) return;
}

/* Bound to the open file, it goes with the process however that ends. */
static enum status take_lock(struct run_folder *folder, const char *dir) {
    char path[1024], owner[256] = "";
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    snprintf(path, sizeof path, "%s/lock", dir);
    folder->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (folder->lock < 0) return status_fail(STATUS_WRITE, "%s: cannot write: %s", path, strerror(errno));
    if (fcntl(folder->lock, F_OFD_SETLK, &lock) == 0) {
        sign(folder->lock);
        return STATUS_OK;
    }
    if (errno != EAGAIN && errno != EACCES) {
        log_warning("%s: this file system has no locks (%s): start no second job on this run", path, strerror(errno));
        return STATUS_OK;
    }
    if (pread(folder->lock, owner, sizeof owner - 1, 0) < 0) owner[0] = '\0';
    owner[strcspn(owner, "\n")] = '\0';
    return status_fail(STATUS_CONFIG, "run.dir: expected a folder that no job writes, found %s held by %s", path,
                       owner);
}

static enum status enter(struct run_folder *folder, const struct config *config) {
    const char *names[] = {"checkpoints", "logs", "heartbeat", "routing"}, *dir = config->run.dir;
    char path[1024];
    for (int i = 0; i < (config->diagnostics.every ? 4 : 3); ++i) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        TRY(make_folder(path));
    }
    snprintf(path, sizeof path, "%s/checkpoints", dir);
    if (access(path, W_OK)) return status_fail(STATUS_WRITE, "run.dir: cannot write in %s: %s", path, strerror(errno));
    return take_lock(folder, dir);
}

enum status run_folder_enter(struct run_folder *folder, const struct config *config, struct comm *world) {
    char logs[1024];
    folder->lock = -1;
    TRY(comm_agree(world, world->rank ? STATUS_OK : enter(folder, config)));
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

static enum status begin(const struct config *config, const struct progress *progress, bool anew) {
    const char *dir = config->run.dir;
    char path[1024];
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    if (!progress->step && !anew && access(path, F_OK) == 0)
        return status_fail(
            STATUS_CONFIG,
            "run.dir: expected a folder without a run, found %s: remove it, set another run.dir, or go on "
            "with --resume %s",
            path, dir);
    TRY(diagnostics_cut_back(dir, progress->step));
    checkpoints_go_on(dir, progress->step, progress->best_step);
    return write_configuration(config);
}

enum status run_folder_begin(const struct config *config, struct comm *world, const struct progress *progress,
                             bool anew) {
    return comm_agree(world, world->rank ? STATUS_OK : begin(config, progress, anew));
}

void run_folder_leave(struct run_folder *folder) {
    if (folder->lock > 0) close(folder->lock);
    folder->lock = -1;
}
