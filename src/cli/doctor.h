/* `vqmoe doctor`: what can be wrong with a machine or a cluster before a run finds out. Each check has one line. */
#ifndef VQMOE_DOCTOR_H
#define VQMOE_DOCTOR_H

#include "comm/comm.h"

enum level { LEVEL_PASS, LEVEL_HINT, LEVEL_FAIL };

/* What a rank has found; zeroed: a pass that has nothing to say. */
struct finding {
    enum level level;
    char text[320]; /* a hint or a failure: what was found, then what to do */
};
void finding_set(struct finding *finding, enum level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

struct doctor {
    struct comm *world, *node; /* node: the ranks that share this one's memory */
    const char *folder;        /* of runs */
    int count[3];              /* lines so far, by level */
};

/* Prints the worst that some rank has found, and who. Collective, as all that follow. */
void doctor_report(struct doctor *doctor, const char *name, const struct finding *finding);
/* Fails where a rank's text is not that of rank 0. */
void doctor_report_same(struct doctor *doctor, const char *name, const char *text);

void doctor_machine(struct doctor *doctor); /* cores, memory, GPUs, names */
void doctor_folder(struct doctor *doctor);  /* the file system of the folder */
void doctor_network(struct doctor *doctor); /* clocks, and messages between the ranks */

#endif
