#include "data/candidates.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "data/stream.h"

enum { MOST = 100000, DEEPEST = 4 };

static enum status add(struct candidates *found, const char *path, const char *name, bool archive, int64_t index,
                       int64_t bytes) {
    const char *slash = strrchr(name, '/');
    if (found->count == MOST)
        return status_fail(STATUS_DATA, "%s: %s: expected at most %d files, found more", found->key, found->path, MOST);
    if ((found->count & (found->count - 1)) == 0)
        found->list = realloc(found->list, (size_t)(2 * found->count + 1) * sizeof *found->list);
    if (!found->list) FATAL("out of memory");
    struct candidate *one = &found->list[found->count++];
    *one = (struct candidate){.archive = archive, .index = index, .bytes = bytes};
    snprintf(one->path, sizeof one->path, "%s", path);
    snprintf(one->name, sizeof one->name, "%s", slash ? slash + 1 : name);
    return STATUS_OK;
}

static enum status add_members(struct candidates *found, const char *path) {
    struct stream *stream = NULL;
    const char *name;
    int64_t bytes;
    enum status status = stream_open(&stream, path, true);
    for (int64_t index = 0; !status; ++index) {
        status = stream_next(stream, &name, &bytes);
        if (status || !name) break;
        status = add(found, path, name, true, index, bytes);
    }
    stream_close(stream);
    return status;
}

/* Hidden ones are nobody's data. */
static int is_shown(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static enum status add_path(struct candidates *found, const char *path, int depth);

static enum status add_folder(struct candidates *found, const char *path, int depth) {
    struct dirent **entries;
    char inner[PATH_MAX];
    enum status status = STATUS_OK;
    int count = scandir(path, &entries, is_shown, alphasort);
    if (count < 0) return status_fail(STATUS_DATA, "%s: %s: cannot read: %s", found->key, path, strerror(errno));
    for (int i = 0; i < count; ++i) {
        snprintf(inner, sizeof inner, "%s/%s", path, entries[i]->d_name);
        if (!status) status = add_path(found, inner, depth + 1);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static enum status add_path(struct candidates *found, const char *path, int depth) {
    struct stat info;
    bool archive = false;
    if (stat(path, &info))
        return status_fail(STATUS_DATA, "%s: %s: expected a readable file or folder, found: %s", found->key, path,
                           strerror(errno));
    if (S_ISDIR(info.st_mode)) return depth < DEEPEST ? add_folder(found, path, depth) : STATUS_OK;
    if (depth == 0) TRY(stream_is_archive(path, &archive));
    return archive ? add_members(found, path) : add(found, path, path, false, 0, info.st_size);
}

enum status candidates_find(struct candidates *found, const char *key, const char *path) {
    *found = (struct candidates){.key = key, .path = path};
    if (!path[0]) return status_fail(STATUS_DATA, "%s: expected the path of a text, found none", key);
    return add_path(found, path, 0);
}

void candidates_free(struct candidates *found) {
    free(found->list);
    *found = (struct candidates){0};
}
