#include "train/heartbeat.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/phase.h"

enum { LINE = 192 }; /* bytes, the line feed included: written at once, and never longer or shorter */

static int file = -1;
static char path[1024], host[65];
static double last; /* clock_seconds */

static void give_up(void) {
    log_warning_here("%s: cannot write: %s; no more heartbeats of this rank", path, strerror(errno));
    if (file >= 0) close(file);
    file = -1;
    phase_listener = NULL;
}

static void write_line(enum phase phase) {
    char line[LINE + 1];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int n =
        snprintf(line, sizeof line, "{\"step\":%lld,\"phase\":\"%s\",\"time\":%lld.%03ld,\"host\":\"%s\",\"pid\":%ld}",
                 (long long)log_placed().step, phase_names[phase], (long long)now.tv_sec, now.tv_nsec / 1000000, host,
                 (long)getpid());
    memset(line + n, ' ', (size_t)(LINE - 1 - n));
    line[LINE - 1] = '\n';
    errno = ENOSPC; /* what a short write means */
    if (pwrite(file, line, LINE, 0) != LINE) give_up();
}

static void beat(enum phase phase, double now) {
    if (now - last < 1) return;
    last = now;
    write_line(phase);
}

void heartbeat_start(const char *folder, int rank) {
    snprintf(path, sizeof path, "%s/heartbeat", folder);
    mkdir(path, 0777); /* of several ranks one makes it */
    snprintf(path, sizeof path, "%s/heartbeat/rank-%04d", folder, rank);
    gethostname(host, sizeof host - 1);
    file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) {
        give_up();
        return;
    }
    last = clock_seconds();
    phase_listener = beat;
    write_line(phase_now());
}

void heartbeat_end(bool done) {
    phase_listener = NULL;
    if (file >= 0 && done) write_line(PHASE_DONE);
    if (file >= 0) close(file);
    file = -1;
}
