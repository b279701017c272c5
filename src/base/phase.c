#include "base/phase.h"

#include <string.h>

#include "base/clock.h"

const char *const phase_names[PHASES] = {"start", "data",     "forward",    "backward", "update",
                                         "look",  "validate", "checkpoint", "done"};

void (*phase_listener)(enum phase phase, double now);

static enum phase current;
static double since; /* when time was last added up; 0: never */
static double seconds[PHASES];

static double add_up(void) {
    double now = clock_seconds();
    if (since > 0) seconds[current] += now - since;
    return since = now;
}

enum phase phase_enter(enum phase phase) {
    enum phase before = current;
    double now = add_up();
    current = phase;
    if (phase_listener) phase_listener(phase, now);
    return before;
}

enum phase phase_now(void) { return current; }

void phase_waited(double waited) { seconds[current] -= waited; }

void phase_busy(double busy[PHASES]) {
    add_up();
    memcpy(busy, seconds, sizeof seconds);
}
