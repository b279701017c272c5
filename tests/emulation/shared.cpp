/* The shared memory of the running block: each array between poisoned bytes, NaN to start with. */
#include <string.h>
#include <sys/mman.h>

#include <vector>

#include "emulation/emulation.h"

namespace emulation {

enum { BYTES = 512 << 10, REDZONE = 64, STATIC_LIMIT = 48 << 10 };

struct array {
    const void *declaration;
    size_t at;
};

struct shared_state {
    const kernel_call *call;
    char *memory; /* [BYTES] */
    size_t used, static_used, dynamic_at;
    std::vector<array> arrays;
    std::vector<char *> blocks; /* ThreadSanitizer: one each for several, as those of two are not the same memory */
    size_t blocks_used;
};
static shared_state &state = *new shared_state();

static size_t take(size_t bytes) {
    size_t at = state.used;
    state.used += (bytes + 2 * REDZONE - 1) / REDZONE * REDZONE;
    if (state.used > BYTES) die("kernel %s: too much shared memory", state.call->name);
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(state.memory + at, bytes);
    memset(state.memory + at, 0xFF, bytes);
    return at;
}

static char *map() {
    void *memory = mmap(nullptr, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) die("no memory for shared arrays");
    return (char *)memory;
}

void shared_start_block(const kernel_call *call) {
    unseen here;
    if (__tsan_create_fiber) {
        if (state.blocks_used == state.blocks.size()) state.blocks.push_back(map());
        state.memory = state.blocks[state.blocks_used++];
    } else if (!state.memory)
        state.memory = map();
    if (__asan_poison_memory_region)
        __asan_poison_memory_region(state.memory, state.used == 0 ? (size_t)BYTES : state.used);
    state.call = call;
    state.used = REDZONE;
    state.static_used = 0;
    state.arrays.clear();
    state.dynamic_at = take(call->bytes);
}

void shared_forget() { state.blocks_used = 0; }

void *shared_array(const void *declaration, size_t bytes) {
    for (const array &a : state.arrays)
        if (a.declaration == declaration) return state.memory + a.at;
    unseen here;
    state.static_used += bytes;
    if (state.static_used > STATIC_LIMIT)
        die("kernel %s: %zu bytes of shared arrays, the limit is %d", state.call->name, state.static_used,
            STATIC_LIMIT);
    state.arrays.push_back({declaration, take(bytes)});
    return state.memory + state.arrays.back().at;
}

void *shared_dynamic() { return state.memory + state.dynamic_at; }

} // namespace emulation
