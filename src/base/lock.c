#include "base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

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
enum status lock_take(int *held, const char *path, const char *key, double patience) {
    char owner[256];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    double from = clock_seconds();
    *held = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*held < 0) return status_fail(STATUS_WRITE, "%s: cannot write: %s", path, strerror(errno));
    for (bool told = false; fcntl(*held, F_OFD_SETLK, &lock); told = true) {
        if (errno != EAGAIN && errno != EACCES) {
            log_warning("%s: this file system has no locks (%s): let no second job write here", path, strerror(errno));
            return STATUS_OK;
        }
        ssize_t length = pread(*held, owner, sizeof owner - 1, 0);
        owner[length > 0 ? length : 0] = '\0';
        owner[strcspn(owner, "\n")] = '\0';
        if (is_local(owner) || clock_seconds() - from > patience)
            return status_fail(STATUS_CONFIG, "%s: expected a folder that no job writes, found %s held by %s", key,
                               path, owner);
        if (!told) log_info("%s is held by %s: waiting up to %.0f s, as that host may be lost", path, owner, patience);
        sleep(1);
    }
    sign(*held);
    return STATUS_OK;
}
