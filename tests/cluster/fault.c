/* What goes wrong in a test, and where: VQMOE_FAULT="rank=1,at=backward,count=3,do=stop;rank=0,...". The rank-th rank
 * does it when it passes that point for the count-th time (1 if not said; every: each time from then on):
 *   kill     dies by SIGKILL          stop     stops by SIGSTOP
 *   exit     ends with code 0         sleep:S  sleeps S seconds
 *   busy:S   works for S seconds
 * At the first time a line on stderr tells when: "fault: 1795336578: rank 1: stop at backward".
 * Linked into test programs alone (base/fault.h). Part of a launcher's job the rank is the launcher's. */
#include "base/fault.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { FAULTS = 8, WORD = 32 };

struct fault {
    int rank, count;
    bool every;
    char at[WORD], what[WORD];
    double seconds;
    int passed;
};

static struct fault faults[FAULTS];
static int n_faults = -1; /* not read yet */

static void wrong(const char *text) {
    fprintf(stderr, "VQMOE_FAULT: expected rank=N,at=POINT[,count=N][,every],do=WHAT[:SECONDS], found '%s'\n", text);
    exit(2);
}

static void read_one(struct fault *fault, char *text) {
    char *rest, whole[256];
    snprintf(whole, sizeof whole, "%s", text);
    *fault = (struct fault){.rank = -1, .count = 1};
    for (char *word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        bool known = sscanf(word, "rank=%d", &fault->rank) == 1 || sscanf(word, "count=%d", &fault->count) == 1 ||
                     sscanf(word, "at=%31s", fault->at) == 1 ||
                     sscanf(word, "do=%31[a-z]:%lf", fault->what, &fault->seconds) >= 1;
        if (!strcmp(word, "every")) known = fault->every = true;
        if (!known) wrong(whole);
    }
    if (fault->rank < 0 || !fault->at[0] || !fault->what[0]) wrong(whole);
}

static int own_rank(void) {
    const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"};
    for (int i = 0; i < 3; ++i)
        if (getenv(names[i])) return atoi(getenv(names[i]));
    return 0;
}

static void read_faults(void) {
    char text[1024], *rest;
    snprintf(text, sizeof text, "%s", getenv("VQMOE_FAULT") ? getenv("VQMOE_FAULT") : "");
    n_faults = 0;
    for (char *one = strtok_r(text, ";", &rest); one; one = strtok_r(NULL, ";", &rest)) {
        if (n_faults == FAULTS) wrong("more than eight");
        read_one(&faults[n_faults], one);
        n_faults += faults[n_faults].rank == own_rank();
    }
}

static void strike(const struct fault *fault) {
    double until = clock_seconds() + fault->seconds;
    if (fault->passed == fault->count)
        fprintf(stderr, "fault: %lld: rank %d: %s at %s\n", (long long)time(NULL), fault->rank, fault->what, fault->at);
    if (!strcmp(fault->what, "kill")) {
        raise(SIGKILL);
    } else if (!strcmp(fault->what, "stop")) {
        raise(SIGSTOP);
    } else if (!strcmp(fault->what, "exit")) {
        _exit(0);
    } else if (!strcmp(fault->what, "sleep")) {
        usleep((useconds_t)(1e6 * fault->seconds));
    } else if (!strcmp(fault->what, "busy")) {
        while (clock_seconds() < until) continue;
    } else {
        wrong(fault->what);
    }
}

void fault_point(const char *where) {
    if (n_faults < 0) read_faults();
    for (int i = 0; i < n_faults; ++i) {
        struct fault *fault = &faults[i];
        if (strcmp(fault->at, where)) continue;
        ++fault->passed;
        if (fault->every ? fault->passed >= fault->count : fault->passed == fault->count) strike(fault);
    }
}
