/* Memory of one step: taken piece by piece, given back all at once. A step whose shapes were seen before allocates
 * nothing. A zeroed arena is the device's memory (device.h). */
#ifndef VQMOE_ARENA_H
#define VQMOE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *blocks; /* the newest first; one only, once shapes are warm */
    size_t used, peak;          /* bytes over all blocks, now and at most ever */
    bool pinned;                /* pinned host memory instead of the device's */
};

/* 256-byte aligned, uninitialised (NaN in debug builds); valid until arena_release or arena_reset. Never NULL. */
void *arena_take(struct arena *arena, size_t bytes);
#define ARENA_ARRAY(arena, type, count) ((type *)arena_take(arena, (size_t)(count) * sizeof(type)))

/* Scratch within a step: everything taken since the mark is given back. */
struct arena_mark {
    struct arena_block *block;
    size_t offset, used;
};
struct arena_mark arena_mark(const struct arena *arena);
void arena_release(struct arena *arena, struct arena_mark mark);

/* Between steps: forgets all pieces; where the last step needed several blocks, one of their joint size replaces them.
 */
void arena_reset(struct arena *arena);
void arena_free(struct arena *arena);

#endif
