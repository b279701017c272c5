#include "base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

bool files_make_folder(const char *path) {
    char part[PATH_MAX];
    snprintf(part, sizeof part, "%s", path);
    for (char *c = part + 1;; ++c) {
        if (*c && *c != '/') continue;
        char kept = *c;
        *c = '\0';
        if (mkdir(part, 0777) && errno != EEXIST) return false;
        *c = kept;
        if (!kept) return true;
    }
}

bool files_await(const char *path) {
    const struct timespec tenth = {.tv_nsec = 100000000};
    for (int i = 0; i < 600; ++i) {
        if (access(path, F_OK) == 0) return true;
        nanosleep(&tenth, NULL);
    }
    return false;
}

bool files_sync_entry(const char *path) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = '\0';
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL);
    int cause = errno;
    if (fd >= 0) close(fd);
    errno = cause;
    return good;
}

bool files_replace(const char *beside, const char *path) { return rename(beside, path) == 0 && files_sync_entry(path); }
