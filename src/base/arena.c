#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { ALIGNMENT = 64 };

/* Blocks are kept newest first; only the newest has room. */
struct arena_block {
    struct arena_block *next;
    size_t size, offset;
    _Alignas(ALIGNMENT) char data[];
};

static size_t round_up(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static void block_add(struct arena *arena, size_t size) {
    size = (size + 65535) / 65536 * 65536;
    struct arena_block *block = aligned_alloc(ALIGNMENT, sizeof *block + size);
    if (!block)
        FATAL("out of memory: a step needs %zu MiB more than the %zu MiB it holds", size >> 20, arena->used >> 20);
    *block = (struct arena_block){.next = arena->blocks, .size = size};
    arena->blocks = block;
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
    while (arena->blocks != mark.block) {
        struct arena_block *block = arena->blocks;
        arena->blocks = block->next;
        free(block);
    }
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
    while (arena->blocks) {
        struct arena_block *block = arena->blocks;
        arena->blocks = block->next;
        free(block);
    }
    *arena = (struct arena){0};
}
