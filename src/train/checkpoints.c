#include "train/checkpoints.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* Step -1: it goes away. */
static void set_link(const char *folder, const char *link_name, int64_t step) {
    char path[CHECKPOINT_PATH], beside[CHECKPOINT_PATH + 8], target[NAME];
    snprintf(path, sizeof path, "%s/checkpoints/%s", folder, link_name);
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

void checkpoints_supersede(const char *folder, int64_t step) {
    char path[CHECKPOINT_PATH], away[CHECKPOINT_PATH + 16];
    int64_t *steps, count = list(folder, ".tmp", &steps), newest = -1;
    for (int64_t i = 0; i < count; ++i) {
        checkpoints_path(path, folder, steps[i]);
        snprintf(away, sizeof away, "%s.tmp", path);
        unlink(away);
    }
    free(steps);
    count = checkpoints_list(folder, &steps);
    for (int64_t i = 0; i < count; ++i) {
        if (steps[i] <= step) {
            if (newest < 0) newest = steps[i];
            continue;
        }
        checkpoints_path(path, folder, steps[i]);
        snprintf(away, sizeof away, "%s.superseded", path);
        if (rename(path, away))
            log_warning("%s: cannot rename: %s", path, strerror(errno));
        else
            log_warning("%s: the run goes on after step %" PRId64 ": kept as %s", path, step, away);
    }
    free(steps);
    if (link_target(folder, "last.h5") > step) set_link(folder, "last.h5", newest);
    if (link_target(folder, "best.h5") > step) set_link(folder, "best.h5", -1);
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
