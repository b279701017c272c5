#include "train/control.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

static volatile sig_atomic_t asked; /* the first signal's number */
static volatile double asked_at;

static void note(int number) {
    double now = clock_seconds(); /* clock_gettime may be called here */
    if (!asked) {
        asked_at = now;
        asked = number;
    } else if (now - asked_at >= 1) {
        _exit(128 + number);
    }
}

/* On a stack of its own: oneDNN multiplies on a small one from the heap, which a signal's frame would run over. */
void control_catch_signals(void) {
    static char stack[64 << 10] __attribute__((aligned(64)));
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    const int numbers[] = {SIGUSR1, SIGUSR2, SIGTERM};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < 3; ++i) sigaddset(&action.sa_mask, numbers[i]);
    for (int i = 0; i < 3; ++i) sigaction(numbers[i], &action, NULL);
}

bool control_was_asked(void) { return asked != 0; }

bool control_is_asked(struct comm *world) {
    int64_t any = asked;
    comm_allreduce(world, &any, 1, COMM_INT64, COMM_MAX);
    return any != 0;
}

void control_start(struct control *control, const struct config *config) {
    *control = (struct control){config, clock_seconds(), clock_seconds()};
}

void control_saved(struct control *control) { control->saved = clock_seconds(); }

struct verdict control_agree(const struct control *control, struct comm *world, bool writing) {
    double now = clock_seconds(), most = control->config->train.max_minutes * 60,
           every = control->config->checkpoint.every_minutes * 60;
    int64_t flags[] = {asked, every > 0 && now - control->saved >= every, writing};
    if (!asked && most > 0 && now - control->started >= most) flags[0] = CONTROL_MINUTES;
    comm_allreduce(world, flags, 3, COMM_INT64, COMM_MAX);
    return (struct verdict){(int)flags[0], flags[1], flags[2]};
}

const char *control_reason(int stop) {
    static char text[32];
    if (stop == CONTROL_MINUTES) return "train.max_minutes";
    snprintf(text, sizeof text, "SIG%s", sigabbrev_np(stop));
    return text;
}
