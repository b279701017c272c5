/* What this rank is at, and how long each kind of work has kept it busy: elapsed time without the waiting for peers, by
 * which a slow rank stands out. The main thread's. On a GPU the host's waiting for its device counts as work. */
#ifndef VQMOE_PHASE_H
#define VQMOE_PHASE_H

enum phase {
    PHASE_START,
    PHASE_DATA,
    PHASE_FORWARD,
    PHASE_BACKWARD,
    PHASE_UPDATE,
    PHASE_LOOK,
    PHASE_VALIDATE,
    PHASE_CHECKPOINT,
    PHASE_DONE,
    PHASES
};
extern const char *const phase_names[PHASES];

/* Returns the phase before, for those who go back to it. Entering it again is fine. */
enum phase phase_enter(enum phase phase);
enum phase phase_now(void);
/* Of the time of this phase so many seconds were waiting. */
void phase_waited(double seconds);
/* Seconds of work in each phase so far. */
void phase_busy(double busy[PHASES]);

/* Called by phase_enter, with clock_seconds; NULL: nobody. */
extern void (*phase_listener)(enum phase phase, double now);

#endif
