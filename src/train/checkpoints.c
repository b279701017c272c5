#include "train/checkpoints.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/files.h"
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

/* Steps of those names, descending, in *steps (the caller frees it), how many in *count: none where there is no such
 * folder. */
static enum status list(const char *folder, const char *ending, int64_t **steps, int64_t *count) {
    char path[CHECKPOINT_PATH];
    struct dirent *entry;
    *steps = NULL;
    *count = 0;
    snprintf(path, sizeof path, "%s/checkpoints", folder);
    errno = 0;
    DIR *dir = opendir(path);
    while (dir && (errno = 0, entry = readdir(dir))) {
        int64_t step = step_of(entry->d_name, ending);
        if (step < 0) continue;
        *steps = realloc(*steps, (size_t)(*count + 1) * sizeof **steps);
        if (!*steps) FATAL("out of memory");
        (*steps)[(*count)++] = step;
    }
    int cause = errno;
    if (dir) closedir(dir);
    if (*count) qsort(*steps, (size_t)*count, sizeof **steps, descending);
    if (!cause || (!dir && cause == ENOENT)) return STATUS_OK;
    free(*steps);
    *steps = NULL;
    *count = 0;
    return status_fail(STATUS_INTERNAL, "%s: cannot read: %s", path, strerror(cause));
}

/* ---- Links ---- */

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

static void link_all(const char *folder, const int64_t *steps, int64_t count, int64_t step, int64_t best_step) {
    int64_t newest = -1, best = -1;
    for (int64_t i = count - 1; i >= 0; --i) {
        if (steps[i] <= step) newest = steps[i];
        if (steps[i] == best_step && best_step <= step) best = best_step;
    }
    set_link(folder, "last.h5", newest);
    set_link(folder, "best.h5", best);
}

/* Where the folder cannot be read nothing is changed. */
static bool list_or_warn(const char *folder, int64_t **steps, int64_t *count) {
    if (!list(folder, "", steps, count)) return true;
    log_warning("%s", status_message());
    status_clear();
    return false;
}

void checkpoints_link(const char *folder, int64_t step, int64_t best_step) {
    int64_t *steps, count;
    if (list_or_warn(folder, &steps, &count)) link_all(folder, steps, count, step, best_step);
    free(steps);
}

void checkpoints_written(const char *folder, int64_t step, int64_t best_step, int64_t keep) {
    char path[CHECKPOINT_PATH];
    int64_t *steps, count;
    if (list_or_warn(folder, &steps, &count)) link_all(folder, steps, count, step, best_step);
    for (int64_t i = keep; keep && i < count; ++i) {
        checkpoints_path(path, folder, steps[i]);
        if (steps[i] != best_step && unlink(path)) log_warning("%s: cannot remove: %s", path, strerror(errno));
    }
    free(steps);
}

static enum status remove_half_written(const char *folder) {
    char path[CHECKPOINT_PATH], half[CHECKPOINT_PATH + 8];
    int64_t *steps, count;
    TRY(list(folder, ".tmp", &steps, &count));
    for (int64_t i = 0; i < count; ++i) {
        checkpoints_path(path, folder, steps[i]);
        snprintf(half, sizeof half, "%s.tmp", path);
        unlink(half);
    }
    free(steps);
    return STATUS_OK;
}

static enum status put_aside(const char *folder, int64_t step, int64_t now) {
    char path[CHECKPOINT_PATH], away[CHECKPOINT_PATH + 32];
    checkpoints_path(path, folder, step);
    snprintf(away, sizeof away, "%s.superseded", path);
    for (int n = 2; access(away, F_OK) == 0; ++n) snprintf(away, sizeof away, "%s.superseded.%d", path, n);
    if (!files_replace(path, away)) return status_fail(STATUS_WRITE, "%s: cannot rename: %s", path, strerror(errno));
    log_warning("%s: the run goes on after step %" PRId64 ": kept as %s", path, now, away);
    return STATUS_OK;
}

enum status checkpoints_put_aside(const char *folder, int64_t step) {
    int64_t *steps, count;
    TRY(remove_half_written(folder));
    TRY(list(folder, "", &steps, &count));
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < count && steps[i] > step && !status; ++i) status = put_aside(folder, steps[i], step);
    free(steps);
    return status;
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
    int64_t *steps = NULL, count = 0;
    *found = false;
    enum status status = comm_agree(world, world->rank ? STATUS_OK : list(folder, "", &steps, &count));
    if (status) return status;
    comm_broadcast(world, &count, sizeof count, 0);
    for (int64_t i = 0; i < count && !*found; ++i) {
        int64_t step = steps ? steps[i] : 0;
        comm_broadcast(world, &step, sizeof step, 0);
        checkpoints_path(path, folder, step);
        status = is_whole(path, world);
        if (status && status != STATUS_CHECKPOINT) break;
        *found = status == STATUS_OK;
        if (status_message()[0]) log_warning_here("not taken: %s", status_message());
        status_clear();
    }
    free(steps);
    if (!count || *found || status != STATUS_CHECKPOINT) return status;
    return comm_agree(world,
                      status_fail(status, "%s/checkpoints: expected a whole checkpoint among %" PRId64 ", found none",
                                  folder, count));
}
