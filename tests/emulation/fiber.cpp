#include "emulation/fiber.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "emulation/emulation.h"

namespace emulation {

enum { PAGE = 4096, STACK_BYTES = 256 << 10 };

/* AddressSanitizer wants the bounds of the stack that it goes to; of the system's stack it tells them itself. */
static const void *system_stack;
static size_t system_stack_bytes;
static void (*fiber_main)();
static int created;

static void arrived(void *fake_stack) {
    const void *bottom;
    size_t bytes;
    if (!__sanitizer_finish_switch_fiber) return;
    __sanitizer_finish_switch_fiber(fake_stack, &bottom, &bytes);
    if (!system_stack) system_stack = bottom, system_stack_bytes = bytes; /* the first fiber comes from there */
}

static void leaving(fiber *from, fiber *to) {
    if (!__sanitizer_start_switch_fiber) return;
    if (to->stack)
        __sanitizer_start_switch_fiber(&from->fake_stack, to->stack + PAGE, to->stack_bytes - PAGE);
    else
        __sanitizer_start_switch_fiber(&from->fake_stack, system_stack, system_stack_bytes);
}

extern "C" void emulation_fiber_start() {
    arrived(nullptr);
    fiber_main();
    die("a fiber has returned");
}

#ifndef EMULATION_UCONTEXT
/* Saves what a called function must keep, and takes up another stack. */
extern "C" void emulation_fiber_jump(void **save, void *stack_pointer);
asm(".text\n"
    ".p2align 4\n"
    ".globl emulation_fiber_jump\n"
    ".type emulation_fiber_jump, @function\n"
    "emulation_fiber_jump:\n"
    "    push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15\n"
    "    mov %rsp, (%rdi)\n"
    "    mov %rsi, %rsp\n"
    "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp\n"
    "    ret\n"
    ".size emulation_fiber_jump, .-emulation_fiber_jump\n"
    ".section .note.GNU-stack,\"\",@progbits\n"
    ".text\n");

static void prepare(fiber *fiber) {
    /* Tops at different distances from their page, or all would share few sets of the cache. */
    char *top = fiber->stack + fiber->stack_bytes - created % 28 * 128;
    uintptr_t *at = (uintptr_t *)top;
    *--at = 0; /* the return address of the first function */
    *--at = (uintptr_t)emulation_fiber_start;
    at -= 6;
    memset(at, 0, 6 * sizeof *at);
    fiber->stack_pointer = at;
}

static void jump(fiber *from, fiber *to) { emulation_fiber_jump(&from->stack_pointer, to->stack_pointer); }
#else
static void prepare(fiber *fiber) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack + PAGE;
    fiber->context.uc_stack.ss_size = fiber->stack_bytes - PAGE;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, (void (*)())emulation_fiber_start, 0);
}

static void jump(fiber *from, fiber *to) { swapcontext(&from->context, &to->context); }
#endif

fiber *fiber_create(void (*main)()) {
    fiber *made = new fiber;
    fiber_main = main;
    made->stack_bytes = STACK_BYTES;
    void *stack =
        mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED || mprotect(stack, PAGE, PROT_NONE) != 0) die("no memory for the stack of a thread");
    made->stack = (char *)stack;
    created++;
    prepare(made);
    return made;
}

void fiber_switch(fiber *from, fiber *to) {
    leaving(from, to);
    jump(from, to);
    arrived(from->fake_stack);
}

bool fiber_overflowed(const fiber *fiber, const void *at) {
    return fiber->stack && (const char *)at >= fiber->stack && (const char *)at < fiber->stack + PAGE;
}

} // namespace emulation
