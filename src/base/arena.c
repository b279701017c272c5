#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

#include "base/device.h"
#include "base/log.h"

enum { ALIGNMENT = 256, GRAIN = 2 << 20 };

/* Blocks are kept newest first; only the newest has room. */
struct arena_block {
    struct arena_block *next;
    size_t size, offset;
    char *data;
};

static size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

static void out_of_memory(const struct arena *arena, size_t bytes) {
    size_t left, total;
    device->memory(&left, &total);
    if (arena->pinned || !total)
        FATAL("out of memory: a step needs %zu MiB more than the %zu MiB it holds", bytes >> 20, arena->used >> 20);
    FATAL("out of device memory: a step needs %zu MiB more than the %zu MiB it holds, %zu of %zu MiB are free: lower "
          "train.batch, raise train.accumulate, or use more ranks",
          bytes >> 20, arena->used >> 20, left >> 20, total >> 20);
}

static void block_add(struct arena *arena, size_t size) {
    struct arena_block *block = malloc(sizeof *block);
    size_t bytes = round_up(size, GRAIN);
    char *data = block ? (arena->pinned ? device->allocate_pinned(bytes) : device->allocate(bytes)) : NULL;
    if (!data) out_of_memory(arena, bytes);
    *block = (struct arena_block){arena->blocks, bytes, 0, data};
    arena->blocks = block;
}

static void block_drop(struct arena *arena) {
    struct arena_block *block = arena->blocks;
    arena->blocks = block->next;
    if (arena->pinned)
        device->release_pinned(block->data, block->size);
    else
        device->release(block->data, block->size);
    free(block);
}

void *arena_take(struct arena *arena, size_t bytes) {
    bytes = round_up(bytes ? bytes : 1, ALIGNMENT);
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
    if (arena->pinned) /* all bits set is a NaN: a value used before it is written shows */
        memset(piece, 0xFF, bytes);
    else
        device->set(piece, 0xFF, bytes);
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
    *arena = (struct arena){.pinned = arena->pinned};
}
