#include "train/checkpoints.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "store/archive.h"

enum { NAME = 32 };

static void name_of(char name[NAME], int64_t step) { snprintf(name, NAME, "step-%010" PRId64 ".h5", step); }

void checkpoints_path(char path[CHECKPOINT_PATH], const char *folder, int64_t step) {
    char name[NAME];
    name_of(name, step);
    snprintf(path, CHECKPOINT_PATH, "%s/checkpoints/%s", folder, name);
}

/* -1: not exactly such a name, then `ending`. */
static int64_t step_of(const char *entry, const char *ending) {
    char name[NAME + 8], expected[NAME];
    int64_t step;
    if (sscanf(entry, "step-%10" SCNd64, &step) != 1 || step < 0) return -1;
    name_of(expected, step);
    snprintf(name, sizeof name, "%s%s", expected, ending);
    return strcmp(entry, name) ? -1 : step;
}

static int descending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

static int64_t list(const char *folder, const char *ending, int64_t **steps) {
    char path[CHECKPOINT_PATH];
    int64_t count = 0;
    snprintf(path, sizeof path, "%s/checkpoints", folder);
    *steps = NULL;
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        int64_t step = step_of(entry->d_name, ending);
        if (step < 0) continue;
        *steps = realloc(*steps, (size_t)(count + 1) * sizeof **steps);
        if (!*steps) FATAL("out of memory");
        (*steps)[count++] = step;
    }
    if (dir) closedir(dir);
    if (count) qsort(*steps, (size_t)count, sizeof **steps, descending);
    return count;
}

int64_t checkpoints_list(const char *folder, int64_t **steps) { return list(folder, "", steps); }

/* ---- Links ---- */

/* Where it leads to; -1: nowhere, or it is no link of ours. */
static int64_t link_target(const char *folder, const char *link_name) {
    char path[CHECKPOINT_PATH], target[NAME] = "";
    snprintf(path, sizeof path, "%s/checkpoints/%s", folder, link_name);
    ssize_t length = readlink(path, target, sizeof target - 1);
    return length > 0 ? step_of(target, "") : -1;
}

/* Step -1: it goes away. What is no link is somebody else's. */
static void set_link(const char *folder, const char *link_name, int64_t step) {
    char path[CHECKPOINT_PATH], beside[CHECKPOINT_PATH + 8], target[NAME];
    struct stat info;
    snprintf(path, sizeof path, "%s/checkpoints/%s", folder, link_name);
    if (lstat(path, &info) == 0 && !S_ISLNK(info.st_mode)) {
        log_warning("%s: expected a link, found something else: left as it is", path);
        return;
    }
    if (step < 0) {
        unlink(path);
        return;
    }
    snprintf(beside, sizeof beside, "%s.new", path);
    name_of(target, step);
    unlink(beside);
    if (symlink(target, beside) || rename(beside, path))
        log_warning("%s: cannot link it to %s: %s", path, target, strerror(errno));
}

void checkpoints_written(const char *folder, int64_t step, bool best, int64_t keep) {
    int64_t *steps, count = checkpoints_list(folder, &steps);
    set_link(folder, "last.h5", step);
    if (best) set_link(folder, "best.h5", step);
    int64_t kept = link_target(folder, "best.h5");
    for (int64_t i = keep; keep && i < count; ++i) {
        char path[CHECKPOINT_PATH];
        checkpoints_path(path, folder, steps[i]);
        if (steps[i] != kept && unlink(path)) log_warning("%s: cannot remove: %s", path, strerror(errno));
    }
    free(steps);
}

static void remove_half_written(const char *folder) {
    char path[CHECKPOINT_PATH], half[CHECKPOINT_PATH + 8];
    int64_t *steps, count = list(folder, ".tmp", &steps);
    for (int64_t i = 0; i < count; ++i) {
        checkpoints_path(path, folder, steps[i]);
        snprintf(half, sizeof half, "%s.tmp", path);
        unlink(half);
    }
    free(steps);
}

static void put_aside(const char *folder, int64_t step, int64_t now) {
    char path[CHECKPOINT_PATH], away[CHECKPOINT_PATH + 16];
    checkpoints_path(path, folder, step);
    snprintf(away, sizeof away, "%s.superseded", path);
    if (rename(path, away))
        log_warning("%s: cannot rename: %s", path, strerror(errno));
    else
        log_warning("%s: the run goes on after step %" PRId64 ": kept as %s", path, now, away);
}

void checkpoints_go_on(const char *folder, int64_t step, int64_t best_step) {
    int64_t *steps, count = checkpoints_list(folder, &steps), newest = -1, best = -1;
    remove_half_written(folder);
    for (int64_t i = 0; i < count; ++i) {
        if (steps[i] > step)
            put_aside(folder, steps[i], step);
        else if (newest < 0)
            newest = steps[i];
        if (steps[i] == best_step && best_step <= step) best = best_step;
    }
    free(steps);
    set_link(folder, "last.h5", newest);
    set_link(folder, "best.h5", best);
}

/* ---- Which one to go on from ---- */

static enum status is_whole(const char *path, struct comm *world) {
    struct archive *archive = NULL;
    int64_t bytes;
    enum status status = archive_open(&archive, path, world);
    if (!status) status = archive_verify(archive, &bytes);
    archive_close(archive);
    return status;
}

enum status checkpoints_newest(char path[CHECKPOINT_PATH], bool *found, const char *folder, struct comm *world) {
    int64_t *steps = NULL, count = world->rank ? 0 : checkpoints_list(folder, &steps);
    enum status status = STATUS_OK;
    comm_broadcast(world, &count, sizeof count, 0);
    *found = false;
    for (int64_t i = 0; i < count && !*found; ++i) {
        int64_t step = steps ? steps[i] : 0;
        comm_broadcast(world, &step, sizeof step, 0);
        checkpoints_path(path, folder, step);
        status = is_whole(path, world);
        *found = status == STATUS_OK;
        if (status && status_message()[0]) log_warning_here("not taken: %s", status_message());
        status_clear();
    }
    free(steps);
    if (!count || *found) return STATUS_OK;
    status = STATUS_CHECKPOINT;
    if (!world->rank)
        status_fail(status, "%s/checkpoints: expected a whole checkpoint among %" PRId64 ", found none", folder, count);
    return status;
}
