#include "base/arena.h"

#include <string.h>
#include <sys/mman.h>

#include "base/log.h"

enum { ALIGNMENT = 64 };

/* Blocks are kept newest first; only the newest has room. */
struct arena_block {
    struct arena_block *next;
    size_t size, offset;
    _Alignas(ALIGNMENT) char data[];
};

static size_t round_up(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* Straight from the kernel, so that a block given back is given back, and in large pages where there are any. */
static void block_add(struct arena *arena, size_t size) {
    enum { LARGE_PAGE = 2 << 20 };
    size_t bytes = (sizeof(struct arena_block) + size + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    struct arena_block *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
        FATAL("out of memory: a step needs %zu MiB more than the %zu MiB it holds", size >> 20, arena->used >> 20);
    madvise(block, bytes, MADV_HUGEPAGE);
    *block = (struct arena_block){.next = arena->blocks, .size = bytes - sizeof *block};
    arena->blocks = block;
}

static void block_drop(struct arena *arena) {
    struct arena_block *block = arena->blocks;
    arena->blocks = block->next;
    munmap(block, sizeof *block + block->size);
}

void *arena_take(struct arena *arena, size_t bytes) {
    bytes = round_up(bytes ? bytes : 1);
    struct arena_block *block = arena->blocks;
    if (!block || block->size - block->offset < bytes) {
        block_add(arena, bytes > 4u << 20 ? bytes : 4u << 20);
        block = arena->blocks;
    }
    void *piece = block->data + block->offset;
    block->offset += bytes;
    arena->used += bytes;
    if (arena->used > arena->peak) arena->peak = arena->used;
#ifndef NDEBUG
    memset(piece, 0xFF, bytes); /* all bits set is a NaN: a value used before it is written shows */
#endif
    return piece;
}

struct arena_mark arena_mark(const struct arena *arena) {
    return (struct arena_mark){arena->blocks, arena->blocks ? arena->blocks->offset : 0, arena->used};
}

/* Blocks added since the mark are freed; arena_reset then makes room for the peak in one block. */
void arena_release(struct arena *arena, struct arena_mark mark) {
    while (arena->blocks != mark.block) block_drop(arena);
    if (mark.block) mark.block->offset = mark.offset;
    arena->used = mark.used;
}

void arena_reset(struct arena *arena) {
    size_t peak = arena->peak;
    if (arena->blocks && (arena->blocks->next || arena->blocks->size < peak)) arena_free(arena);
    if (!arena->blocks && peak) block_add(arena, peak + peak / 16);
    if (arena->blocks) arena->blocks->offset = 0;
    arena->used = 0;
    arena->peak = peak;
}

void arena_free(struct arena *arena) {
    while (arena->blocks) block_drop(arena);
    *arena = (struct arena){0};
}
