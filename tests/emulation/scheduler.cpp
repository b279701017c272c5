/* Runs the blocks of a launch one after the other, and the threads of a block as fibers: a thread runs until it waits
 * for others, and then the next one does. One that never waits costs a call. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "emulation/emulation.h"
#include "emulation/fiber.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {

enum { WARP = 32, MOST_THREADS = 1024, MOST_WARPS = MOST_THREADS / WARP, NO_SYNC = 1, WINDOW = 1024 };

/* The next of the threads that can run; what a barrier sets free joins them. Forward and reverse: by turns, in
 * ascending or descending order. Random: any. Greedy: whoever was set free last goes on, as far as it gets. */
enum order { FORWARD, REVERSE, RANDOM, GREEDY };

struct thread {
    uint3 index;
    fiber *on;      /* where it waits; NULL: not started */
    void *tsan;     /* its context */
    uint64_t value; /* given to a shuffle, then taken from it */
    int from;
};

/* Lanes that meet, at the lowest of them. */
struct meeting {
    unsigned mask, arrived;
    collective kind;
    site at;
};

struct warp {
    unsigned lanes, exited, waiting;
    meeting meetings[WARP];
};

struct launch_state {
    kernel_call *call;
    order order_by;
    uint64_t random;
    thread threads[MOST_THREADS];
    warp warps[MOST_WARPS];
    unsigned count, current, exited;
    unsigned ready[MOST_THREADS], ready_first, ready_count; /* a ring */
    unsigned arrived, predicates, phase, results[2];        /* of the barrier */
    site barrier_at;
    fiber *here, *host;
    std::vector<fiber *> idle, used;
    std::vector<void *> contexts; /* TSan's */
    size_t contexts_used;
    void *host_context;
    char phase_key[2], start_key, launch_key;
};
static launch_state &run = *new launch_state(); /* there until the process ends */

const char *running_thread() {
    static char text[400];
    text[0] = 0;
    if (run.call)
        snprintf(text, sizeof text, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u)", run.call->name, blockIdx.x,
                 blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    return text;
}

bool stack_overflowed(const void *at) { return run.here && fiber_overflowed(run.here, at); }

/* xorshift64 */
static unsigned random_below(unsigned n) {
    run.random ^= run.random << 13;
    run.random ^= run.random >> 7;
    run.random ^= run.random << 17;
    return (unsigned)((run.random >> 33) % n);
}

static void push_last(unsigned thread) { run.ready[(run.ready_first + run.ready_count++) % MOST_THREADS] = thread; }

static void push_first(unsigned thread) {
    run.ready_first = (run.ready_first + MOST_THREADS - 1) % MOST_THREADS;
    run.ready[run.ready_first] = thread;
    run.ready_count++;
}

static unsigned pop() {
    unsigned first = run.ready_first;
    if (run.order_by == RANDOM) {
        unsigned any = (first + random_below(run.ready_count)) % MOST_THREADS, thread = run.ready[any];
        run.ready[any] = run.ready[first];
        run.ready[first] = thread;
    }
    run.ready_first = (first + 1) % MOST_THREADS;
    run.ready_count--;
    return run.ready[first];
}

static void set_current(unsigned thread) {
    run.current = thread;
    threadIdx = run.threads[thread].index;
    if (run.threads[thread].tsan) __tsan_switch_to_fiber(run.threads[thread].tsan, NO_SYNC);
}

/* Nobody can go on: says where somebody waits. */
[[noreturn]] static void stuck() {
    for (unsigned w = 0; w * WARP < run.count; w++) {
        for (int i = 0; i < WARP; i++) {
            const meeting *m = &run.warps[w].meetings[i];
            if (m->arrived != 0)
                die_at(m->at, "no thread can go on: of the lanes %08x of warp %u only %08x came here", m->mask, w,
                       m->arrived);
        }
    }
    die_at(run.barrier_at, "no thread can go on: %u of the block's %u threads wait at this barrier", run.arrived,
           run.count);
}

static void thread_exits();
static void fiber_loop();

static fiber *new_fiber() {
    unseen here;
    return fiber_create(fiber_loop);
}

static fiber *idle_fiber() {
    if (run.idle.empty()) return new_fiber();
    fiber *found = run.idle.back();
    run.idle.pop_back();
    return found;
}

/* A fiber without a thread. ThreadSanitizer has each thread on a stack of its own, as one's variables are not
 * another's. */
static void put_aside(fiber *fiber) {
    unseen here;
    (run.host_context ? run.used : run.idle).push_back(fiber);
}

/* Every fiber: takes threads that have not started, one after the other. */
static void fiber_loop() {
    for (;;) {
        if (run.host_context) __tsan_acquire(&run.start_key);
        run.call->run();
        thread_exits();
        fiber *mine = run.here;
        if (run.ready_count == 0) {
            if (run.exited < run.count) stuck();
            put_aside(mine);
            run.here = run.host;
            if (run.host_context) __tsan_switch_to_fiber(run.host_context, NO_SYNC);
            fiber_switch(mine, run.host);
            continue;
        }
        unsigned next = pop();
        set_current(next);
        fiber *on = run.threads[next].on;
        if (!on && !run.host_context) continue;
        put_aside(mine);
        if (!on) on = idle_fiber();
        run.here = on;
        fiber_switch(mine, on);
    }
}

/* The current thread waits until somebody makes it ready and its turn has come. */
static void wait_here() {
    if (run.ready_count == 0) stuck();
    fiber *mine = run.here;
    run.threads[run.current].on = mine;
    unsigned next = pop();
    set_current(next);
    if (run.threads[next].on == mine) return;
    fiber *on = run.threads[next].on ? run.threads[next].on : idle_fiber();
    run.here = on;
    fiber_switch(mine, on);
}

static void thread_exits() {
    unsigned lane = run.current % WARP;
    warp *w = &run.warps[run.current / WARP];
    if (run.arrived > 0)
        die_at(run.barrier_at, "divergent barrier: this thread has ended, %u others wait here", run.arrived);
    if (w->waiting != 0)
        for (int i = 0; i < WARP; i++)
            if (w->meetings[i].arrived != 0 && (w->meetings[i].mask & 1U << lane))
                die_at(w->meetings[i].at, "lane %u has ended, others of the mask %08x wait for it here", lane,
                       w->meetings[i].mask);
    w->exited |= 1U << lane;
    run.exited++;
    if (run.host_context) __tsan_release(&run.launch_key);
}

/* Threads that waited, and the current one, go on. */
static void set_free(unsigned first, unsigned lanes_count, unsigned mask) {
    bool mine_first = run.order_by == GREEDY;
    for (unsigned i = 0; i < lanes_count; i++) {
        unsigned thread = first + (run.order_by == FORWARD ? i : lanes_count - 1 - i);
        if (lanes_count <= WARP && !(mask >> (thread - first) & 1)) continue;
        if (thread == run.current && mine_first) continue;
        if (run.order_by == GREEDY)
            push_first(thread);
        else
            push_last(thread);
    }
    if (!mine_first) wait_here();
}

static bool same(site a, site b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }

int barrier_count(bool predicate, site at) {
    if (!run.call) die("%s:%d: a barrier outside of a kernel", at.file, at.line);
    if (run.exited > 0) die_at(at, "divergent barrier: %u of the block's %u threads have ended", run.exited, run.count);
    if (run.arrived > 0 && !same(at, run.barrier_at))
        die_at(at, "divergent barrier: %u threads wait at %s:%d", run.arrived, run.barrier_at.file,
               run.barrier_at.line);
    unsigned phase = run.phase;
    if (run.host_context) __tsan_release(&run.phase_key[phase]);
    run.barrier_at = at;
    run.predicates += predicate;
    if (++run.arrived < run.count)
        wait_here();
    else {
        run.results[phase] = run.predicates;
        run.arrived = run.predicates = 0;
        run.phase = 1 - phase;
        set_free(0, run.count, ~0U);
    }
    if (run.host_context) __tsan_acquire(&run.phase_key[phase]);
    return (int)run.results[phase];
}

void barrier(site at) { barrier_count(false, at); }

int lane() { return (int)(run.current % WARP); }

static void check_meeting(const warp *w, const meeting *m, unsigned mask, collective kind, int from, site at) {
    unsigned bit = 1U << run.current % WARP;
    if (!(mask & bit)) die_at(at, "wrong shuffle mask: %08x does not name lane %d, which is here", mask, lane());
    if (mask & ~w->lanes) die_at(at, "wrong shuffle mask: %08x names lanes beyond the block (%08x)", mask, w->lanes);
    if (mask & w->exited) die_at(at, "wrong shuffle mask: of %08x the lanes %08x have ended", mask, mask & w->exited);
    if (kind == SHUFFLE && !(mask >> (unsigned)from & 1))
        die_at(at, "wrong shuffle: lane %d reads lane %d, which is not in the mask %08x", lane(), from, mask);
    if (m->arrived == 0) {
        if (mask & w->waiting)
            die_at(at, "wrong shuffle mask: of %08x the lanes %08x wait elsewhere", mask, mask & w->waiting);
    } else if (m->mask != mask)
        die_at(at, "wrong shuffle mask: %08x, where others at %s:%d said %08x", mask, m->at.file, m->at.line, m->mask);
    else if (m->kind != kind || !same(m->at, at))
        die_at(at, "divergent shuffle: others of the mask %08x wait at %s:%d", mask, m->at.file, m->at.line);
}

uint64_t meet(collective kind, unsigned mask, uint64_t value, int from, site at) {
    if (!run.call) die("%s:%d: a shuffle outside of a kernel", at.file, at.line);
    unsigned first = run.current / WARP * WARP, bit = 1U << run.current % WARP;
    warp *w = &run.warps[run.current / WARP];
    meeting *m = &w->meetings[mask == 0 ? 0 : __builtin_ctz(mask)];
    thread *mine = &run.threads[run.current];
    check_meeting(w, m, mask, kind, from, at);
    m->mask = mask;
    m->kind = kind;
    m->at = at;
    m->arrived |= bit;
    w->waiting |= bit;
    mine->value = value;
    mine->from = from;
    if (run.host_context && kind == SYNC_WARP) __tsan_release(m); /* shuffles order no memory */
    if (m->arrived != mask)
        wait_here();
    else {
        uint64_t given[WARP], ballot = 0;
        for (unsigned i = 0; i < WARP; i++) {
            if (!(mask >> i & 1)) continue;
            given[i] = run.threads[first + i].value;
            ballot |= (uint64_t)(given[i] != 0) << i;
        }
        for (unsigned i = 0; i < WARP; i++)
            if (mask >> i & 1)
                run.threads[first + i].value = kind == SHUFFLE ? given[run.threads[first + i].from] : ballot;
        m->arrived = 0;
        w->waiting &= ~mask;
        set_free(first, WARP, mask);
    }
    if (run.host_context && kind == SYNC_WARP) __tsan_acquire(m);
    return mine->value;
}

/* ThreadSanitizer: whatever comes later comes after what was so far. Contexts and stacks serve again, which is much
 * cheaper than new ones. */
static void forget_threads() {
    if (!run.host_context) return;
    __tsan_acquire(&run.launch_key);
    __tsan_release(&run.start_key);
    shared_forget();
    run.contexts_used = 0;
    run.idle.insert(run.idle.end(), run.used.begin(), run.used.end());
    run.used.clear();
}

/* ThreadSanitizer compares the threads of a few blocks at a time: the more there are, the slower it is. */
static void make_room() {
    size_t most = 2 * run.count > WINDOW ? 2 * run.count : (size_t)WINDOW;
    if (run.contexts_used + run.count > most) forget_threads();
}

static void *next_context() {
    if (run.contexts_used == run.contexts.size()) run.contexts.push_back(__tsan_create_fiber(0));
    return run.contexts[run.contexts_used++];
}

static void run_block() {
    make_room();
    shared_start_block(run.call); /* before there are threads that could meet in it */
    run.exited = run.arrived = run.predicates = run.phase = 0;
    run.ready_first = run.ready_count = 0;
    memset(run.warps, 0, (run.count + WARP - 1) / WARP * sizeof *run.warps);
    for (unsigned i = 0; i < run.count; i++) {
        thread *t = &run.threads[i];
        t->on = nullptr;
        run.warps[i / WARP].lanes |= 1U << i % WARP;
        push_last(run.order_by == REVERSE ? run.count - 1 - i : i);
        if (run.host_context) t->tsan = next_context();
    }
    if (emulation_count_block) emulation_count_block();
    set_current(pop());
    run.here = idle_fiber();
    fiber_switch(run.host, run.here);
}

static void choose_order() {
    const char *name = setting("VQMOE_EMULATION_ORDER", "forward"),
               *names[] = {"forward", "reverse", "random", "greedy"};
    int found = -1;
    for (int i = 0; i < 4; i++)
        if (strncmp(name, names[i], strlen(names[i])) == 0) found = i;
    if (found < 0)
        die("VQMOE_EMULATION_ORDER: expected forward, reverse, random, random:SEED or greedy, found %s", name);
    run.order_by = (order)found;
    run.random = 0x9E3779B97F4A7C15ULL;
    if (found == RANDOM && name[6] == ':') run.random += strtoull(name + 7, nullptr, 10) * 0xD1B54A32D192ED03ULL;
    run.host = new fiber;
}

static void place_threads(const kernel_call *call) {
    run.count = call->block.x * call->block.y * call->block.z;
    unsigned i = 0;
    for (unsigned z = 0; z < call->block.z; z++)
        for (unsigned y = 0; y < call->block.y; y++)
            for (unsigned x = 0; x < call->block.x; x++) run.threads[i++].index = {x, y, z};
}

void execute(kernel_call *call) {
    if (!run.host) choose_order();
    dim3 grid = call->grid;
    run.host_context = __tsan_create_fiber ? __tsan_get_current_fiber() : nullptr;
    forget_threads();
    run.call = call;
    blockDim = call->block;
    gridDim = grid;
    place_threads(call);
    if (emulation_count_begin) emulation_count_begin(call->instance);
    for (unsigned z = 0; z < grid.z; z++) {
        for (unsigned y = 0; y < grid.y; y++) {
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = {x, y, z};
                run_block();
            }
        }
    }
    if (emulation_count_end) emulation_count_end();
    forget_threads();
    run.call = nullptr;
}

} // namespace emulation
