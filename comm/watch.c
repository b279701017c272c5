#include "comm/watch.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/phase.h"
#include "comm/roll_call.h"

/* The last ones, for what has to be told: a group may be gone by then. */
enum { PLACES = 4 };
static struct watch_place places[PLACES];
static int64_t noted;
static _Atomic double limit = 600;
static void (*look)(void);
static int own_rank;

static const struct watch_place *last_place(void) { return &places[(noted + PLACES - 1) % PLACES]; }

void watch_note(struct comm *comm, const char *operation, int64_t bytes) {
    struct log_spot at = log_placed();
    places[noted++ % PLACES] = (struct watch_place){operation, comm->name, comm->id, comm->operations++,
                                                    bytes,     at.step,    at.layer, phase_names[phase_now()]};
}

/* ---- Lines ---- */

void watch_add(char *text, size_t size, const char *format, ...) {
    size_t at = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + at, size - at, format, args);
    va_end(args);
}

void watch_add_place(char *text, size_t size, const struct watch_place *place) {
    watch_add(text, size, "%s", place->operation);
    if (place->bytes >= 0) watch_add(text, size, " (%" PRId64 " bytes)", place->bytes);
    watch_add(text, size, " of %s", place->group);
    if (place->step >= 0) watch_add(text, size, " at step %" PRId64, place->step);
    if (place->step >= 0 && place->layer >= 0) watch_add(text, size, ", layer %d", place->layer);
    watch_add(text, size, " (%s)", place->phase);
}

void watch_lost(const char *format, ...) {
    char what[2048], before[1024] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    for (int64_t i = noted - 1; i >= 0 && i >= noted - PLACES; --i) {
        watch_add(before, sizeof before, i == noted - 1 ? "; asked for last: " : ", ");
        watch_add_place(before, sizeof before, &places[i % PLACES]);
    }
    FATAL_STATUS(STATUS_PEER, "%s%s", what, before);
}

/* ---- Waiting, by polling ---- */

static const struct comm *met; /* whose ranks are waited for; NULL: the device, and so perhaps anybody */

/* The roll is called several times, so that what ranks have said is not old when it is told. */
static void end_overdue(double waited) {
    enum { CALLS = 6 };
    static int calls;
    const double between = 0.25;
    double over = waited - limit;
    if (over <= 0) {
        calls = 0;
        return;
    }
    if (over >= calls * between && calls < CALLS) {
        roll_call_ask(met ? met->members : NULL, met ? met->size : 0, calls > 0);
        ++calls;
    }
    if (over < CALLS * between) return;
    char missing[512] = "", rest[1024] = "", place[256] = "";
    roll_call_result(last_place(), missing, sizeof missing, rest, sizeof rest);
    watch_add_place(place, sizeof place, last_place());
    if (!met) watch_lost("waited %.1f s (the limit is %g s)%s; %s", waited, (double)limit, missing, rest);
    FATAL_STATUS(STATUS_PEER, "waited %.1f s (the limit is %g s)%s in %s; %s", waited, (double)limit, missing, place,
                 rest);
}

/* seconds: since this wait began. A long time between two calls is one in which this process was stopped. */
static void waiting(double seconds) {
    static double waited, before;
    if (seconds < before) waited = before = 0;
    waited += fmin(seconds - before, 1);
    before = seconds;
    if (look) look();
    roll_call_answer(last_place());
    end_overdue(waited);
}

/* ---- Blocked, seen by a thread ---- */

static atomic_llong calls; /* odd: the main thread is in a call */
static atomic_int ending;  /* the status */
static double entered;     /* clock_seconds; 0: not in a call */

static void say_blocked(double seconds) {
    char text[512] = "", line[640];
    watch_add_place(text, sizeof text, last_place());
    int n = snprintf(line, sizeof line,
                     "vqmoe: rank %d: blocked for %.1f s in %s: a peer has stopped or is lost in the middle of it, "
                     "or the network is down\n",
                     own_rank, seconds, text);
    if (write(STDERR_FILENO, line, (size_t)n) < 0) _exit(STATUS_PEER); /* not by stdio: its locks may be held */
}

/* Its own wake-ups are the clock: they stop where the process is stopped. */
static void *watch(void *nothing) {
    const double patience = 5; /* seconds for an end that has begun */
    double seen = 0;
    long long last = 0;
    for (;;) {
        double every = fmin(fmax(limit / 100, 0.02), 1);
        struct timespec nap = {(time_t)every, (long)((every - floor(every)) * 1e9)};
        nanosleep(&nap, NULL);
        long long now = calls;
        seen = now == last && now % 2 ? seen + every : 0;
        last = now;
        if (ending && seen > patience) _exit(ending);
        if (seen <= limit || ending) continue;
        say_blocked(seen);
        usleep(300000 * (useconds_t)(own_rank % 8)); /* one after the other: launchers were seen to stumble */
        _exit(STATUS_PEER);
    }
    return nothing;
}

void watch_start(int rank) {
    static bool started;
    pthread_t thread;
    sigset_t all, before;
    if (started) return;
    started = true;
    own_rank = rank;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
    if (pthread_create(&thread, NULL, watch, NULL)) FATAL("cannot start a thread");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_detach(thread);
    device_while_waiting = waiting;
}

void watch_limit(double seconds) {
    CHECK(seconds > 0);
    limit = seconds;
}

void watch_look(void (*look_at)(void)) { look = look_at; }

static void begin_call(void) {
    if (calls % 2 == 0) ++calls;
}

void watch_enter(void) {
    entered = clock_seconds();
    begin_call();
}

void watch_meet(struct comm *comm) {
    if (comm->size == 1) return;
    entered = clock_seconds();
    met = comm;
    comm->ops->meet(comm, waiting);
    met = NULL;
    begin_call();
}

void watch_done(void) {
    if (!(entered > 0)) return;
    ++calls;
    phase_waited(clock_seconds() - entered);
    entered = 0;
}

void watch_ending(enum status status) {
    if (ending) return;
    ++calls;
    begin_call();
    ending = (int)status;
}
