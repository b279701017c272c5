/* A signal leaves the stack alone on which the program happens to be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "train/control.h"

enum { BELOW = 32 << 10, STACK = 2 << 10, MARK = 0x5A };

static unsigned char memory[BELOW + STACK] __attribute__((aligned(64)));
static ucontext_t here, there;

static void on_a_small_stack(void) {
    pthread_kill(pthread_self(), SIGUSR1);
    swapcontext(&there, &here);
}

static void a_small_stack_is_left_alone(void **state) {
    (void)state;
    control_catch_signals();
    pthread_kill(pthread_self(), 0); /* the dynamic linker's first search takes more stack than the call */
    memset(memory, MARK, sizeof memory);
    getcontext(&there);
    there.uc_stack = (stack_t){.ss_sp = memory + BELOW, .ss_size = STACK};
    makecontext(&there, on_a_small_stack, 0);
    swapcontext(&here, &there);
    assert_true(control_was_asked());
    for (int i = 0; i < BELOW; ++i) assert_int_equal(memory[i], MARK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_small_stack_is_left_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
