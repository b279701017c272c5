#include "train/run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
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

/* Whether the lock's owner is on this host, which knows when a process ends. */
static bool is_local(const char *owner) {
    char host[65] = "", begin[80];
    gethostname(host, sizeof host - 1);
    snprintf(begin, sizeof begin, "host %s,", host);
    return !strncmp(owner, begin, strlen(begin));
}

/* Bound to the open file, it goes with the process however that ends; a server keeps that of a host that was lost for
 * some minutes. */
static enum status take_lock(struct run_folder *folder, const struct config *config) {
    char path[1024], owner[256];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    double from = clock_seconds(), patience = fmin(180, config->parallel.timeout_s / 2);
    snprintf(path, sizeof path, "%s/lock", config->run.dir);
    folder->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (folder->lock < 0) return status_fail(STATUS_WRITE, "%s: cannot write: %s", path, strerror(errno));
    for (bool told = false; fcntl(folder->lock, F_OFD_SETLK, &lock); told = true) {
        if (errno != EAGAIN && errno != EACCES) {
            log_warning("%s: this file system has no locks (%s): start no second job on this run", path,
                        strerror(errno));
            return STATUS_OK;
        }
        ssize_t length = pread(folder->lock, owner, sizeof owner - 1, 0);
        owner[length > 0 ? length : 0] = '\0';
        owner[strcspn(owner, "\n")] = '\0';
        if (is_local(owner) || clock_seconds() - from > patience)
            return status_fail(STATUS_CONFIG, "run.dir: expected a folder that no job writes, found %s held by %s",
                               path, owner);
        if (!told) log_info("%s is held by %s: waiting up to %.0f s, as that host may be lost", path, owner, patience);
        sleep(1);
    }
    sign(folder->lock);
    return STATUS_OK;
}

/* Those of ranks that this start does not have would grow old. */
static void remove_heartbeats(const char *dir, int ranks) {
    char path[1024];
    for (int rank = ranks;; ++rank) {
        snprintf(path, sizeof path, "%s/heartbeat/rank-%04d", dir, rank);
        if (unlink(path)) return;
    }
}

static enum status enter(struct run_folder *folder, const struct config *config, int ranks) {
    const char *names[] = {"checkpoints", "logs", "heartbeat", "routing"}, *dir = config->run.dir;
    char path[1024];
    for (int i = 0; i < (config->diagnostics.every ? 4 : 3); ++i) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        TRY(make_folder(path));
    }
    snprintf(path, sizeof path, "%s/checkpoints", dir);
    if (access(path, W_OK)) return status_fail(STATUS_WRITE, "run.dir: cannot write in %s: %s", path, strerror(errno));
    TRY(take_lock(folder, config));
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
