/* The arena: pieces apart and aligned, scratch given back, and nothing allocated once shapes are warm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"

enum { PIECES = 9 };
static const size_t sizes[PIECES] = {1, 64, 0, 65, 100000, 5 << 20, 3, 2 << 20, 12345};

static void take_pieces(struct arena *arena, unsigned char **pieces) {
    for (int i = 0; i < PIECES; ++i) {
        pieces[i] = arena_take(arena, sizes[i]);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 256, 0);
        memset(pieces[i], i + 1, sizes[i]);
    }
}

static void expect_pieces(unsigned char **pieces) {
    for (int i = 0; i < PIECES; ++i)
        for (size_t j = 0; j < sizes[i]; ++j)
            if (pieces[i][j] != i + 1) fail_msg("piece %d, byte %zu: another piece lies there", i, j);
}

static void pieces_are_apart(void **state) {
    (void)state;
    struct arena arena = {0};
    unsigned char *pieces[PIECES];
    take_pieces(&arena, pieces); /* over several blocks */
    expect_pieces(pieces);
    double *array = ARENA_ARRAY(&arena, double, 1000);
    for (int i = 0; i < 1000; ++i) array[i] = i;
    expect_pieces(pieces);
    assert_true(arena.used >= (7u << 20) + 1000 * sizeof *array && arena.peak == arena.used);
    arena_free(&arena);
    assert_true(!arena.blocks && !arena.used && !arena.peak);
    arena_free(&arena); /* a zeroed one is fine */
}

static void warm_step_allocates_nothing(void **state) {
    (void)state;
    struct arena arena = {0};
    unsigned char *first[PIECES], *again[PIECES];
    take_pieces(&arena, first);
    size_t peak = arena.peak;
    arena_reset(&arena);
    assert_int_equal(arena.used, 0);
    assert_int_equal(arena.peak, peak);
    take_pieces(&arena, first);
    const struct arena_block *block = arena.blocks;
    for (int step = 0; step < 3; ++step) {
        arena_reset(&arena);
        take_pieces(&arena, again);
        assert_ptr_equal(arena.blocks, block);
        assert_memory_equal(again, first, sizeof first); /* the same places */
        expect_pieces(again);
    }
    assert_int_equal(arena.peak, peak);
    arena_free(&arena);
}

/* Scratch that needed a block of its own: the block goes, its size is remembered for the next step. */
static void released_scratch_is_remembered(void **state) {
    (void)state;
    struct arena arena = {0};
    unsigned char *before = arena_take(&arena, 1000), *scratch = NULL;
    memset(before, 7, 1000);
    for (int step = 0; step < 3; ++step) {
        struct arena_mark mark = arena_mark(&arena);
        size_t used = arena.used;
        scratch = arena_take(&arena, 20 << 20);
        memset(scratch, 9, 20 << 20);
        arena_release(&arena, mark);
        assert_int_equal(arena.used, used);
        for (int i = 0; i < 1000; ++i) assert_int_equal(before[i], 7);
        arena_reset(&arena);
        before = arena_take(&arena, 1000);
        memset(before, 7, 1000);
    }
    const struct arena_block *block = arena.blocks;
    struct arena_mark mark = arena_mark(&arena);
    unsigned char *within = arena_take(&arena, 20 << 20);
    assert_ptr_equal(arena.blocks, block);
    arena_release(&arena, mark);
    assert_ptr_equal(arena_take(&arena, 20 << 20), within);
    arena_free(&arena);
}

static void marks_nest(void **state) {
    (void)state;
    struct arena arena = {0};
    struct arena_mark empty = arena_mark(&arena);
    arena_take(&arena, 100);
    struct arena_mark outer = arena_mark(&arena);
    unsigned char *a = arena_take(&arena, 200);
    struct arena_mark inner = arena_mark(&arena);
    unsigned char *b = arena_take(&arena, 300);
    arena_release(&arena, inner);
    assert_ptr_equal(arena_take(&arena, 10), b);
    arena_release(&arena, outer);
    assert_ptr_equal(arena_take(&arena, 10), a);
    arena_release(&arena, empty); /* a mark from before the first block */
    assert_int_equal(arena.used, 0);
    assert_non_null(arena_take(&arena, 10));
    arena_free(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_apart),
        cmocka_unit_test(warm_step_allocates_nothing),
        cmocka_unit_test(released_scratch_is_remembered),
        cmocka_unit_test(marks_nest),
    };
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
