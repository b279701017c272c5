#include "comm/watch.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"

/* By value: a group may be gone when its operation is told of. */
struct note {
    const char *operation, *group;
    int rank, size;
    int64_t bytes;
    struct log_spot at;
};

enum { NOTES = 4 };
static struct note notes[NOTES];
static int64_t noted;
static double limit; /* seconds; 0: forever */
static void (*look)(void);

void watch_note(const struct comm *comm, const char *operation, int64_t bytes) {
    notes[noted++ % NOTES] = (struct note){operation, comm->name, comm->rank, comm->size, bytes, log_placed()};
}

/* The newest first. */
static void tell(char *text, size_t size) {
    size_t at = 0;
    for (int64_t i = noted - 1; i >= 0 && i >= noted - NOTES && at < size; --i) {
        const struct note *n = &notes[i % NOTES];
        char bytes[32] = "";
        if (n->bytes >= 0) snprintf(bytes, sizeof bytes, " (%" PRId64 " bytes)", n->bytes);
        at += (size_t)snprintf(text + at, size - at, "%s%s%s in %s, rank %d of %d", i == noted - 1 ? "" : "; ",
                               n->operation, bytes, n->group, n->rank, n->size);
        if (n->at.step >= 0 && at < size)
            at += (size_t)snprintf(text + at, size - at, ", at step %" PRId64 ", layer %d", n->at.step, n->at.layer);
    }
}

void watch_lost(const char *format, ...) {
    char what[512], last[1024] = "nothing";
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    tell(last, sizeof last);
    FATAL_STATUS(STATUS_PEER, "%s; asked for last: %s", what, last);
}

static void waiting(double seconds) {
    if (look) look();
    if (seconds > limit) watch_lost("waited %.1f s for the peers, the limit is %.1f s", seconds, limit);
}

void watch_start(double limit_s, void (*look_at)(void)) {
    CHECK(limit_s > 0);
    limit = limit_s;
    look = look_at;
    device_while_waiting = waiting;
}

void watch_meet(struct comm *comm) {
    if (limit > 0 && comm->size > 1) comm->ops->meet(comm, waiting);
}
