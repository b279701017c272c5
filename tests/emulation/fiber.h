/* Stacks that one thread of the system switches between. */
#ifndef VQMOE_EMULATION_FIBER_H
#define VQMOE_EMULATION_FIBER_H

#include <stddef.h>

/* The C library's own contexts serve every processor, at ten times the cost. */
#ifndef __x86_64__
#define EMULATION_UCONTEXT
#endif
#ifdef EMULATION_UCONTEXT
#include <ucontext.h>
#endif

namespace emulation {

struct fiber {
    void *stack_pointer = nullptr;
    char *stack = nullptr; /* mapping, its lowest page untouchable; NULL: the system's own stack */
    size_t stack_bytes = 0;
    void *fake_stack = nullptr; /* AddressSanitizer's */
#ifdef EMULATION_UCONTEXT
    ucontext_t context;
#endif
};

/* A fiber that runs main() from its first switch on; main never returns. */
fiber *fiber_create(void (*main)());
/* Goes on in `to`; returns when somebody switches back. */
void fiber_switch(fiber *from, fiber *to);
/* The lowest, untouchable page of a fiber's stack holds the address. */
bool fiber_overflowed(const fiber *fiber, const void *at);

} // namespace emulation

#endif
