#include "data/batches.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "data/permutation.h"

/* ---- Permutations ---- */

static void check_bijection(uint64_t seed, uint64_t stream, int64_t n) {
    struct permutation order = permutation_of(seed, stream, n);
    char *seen = calloc((size_t)n, 1);
    for (int64_t i = 0; i < n; ++i) {
        int64_t at = permutation_at(&order, i);
        assert_true(at >= 0 && at < n && !seen[at]);
        seen[at] = 1;
    }
    free(seen);
}

static void test_bijection(void **state) {
    (void)state;
    for (int64_t n = 1; n <= 260; ++n) check_bijection(1, 0, n);
    for (int64_t power = 512; power <= 1 << 17; power *= 2)
        for (int64_t n = power - 1; n <= power + 1; ++n) check_bijection(2, 7, n);
    struct permutation large = permutation_of(3, 1, INT64_C(1) << 62);
    for (int64_t i = 0; i < 1000; ++i) assert_true(permutation_at(&large, i) < large.n);
}

static int64_t places_in_common(struct permutation a, struct permutation b) {
    int64_t common = 0;
    for (int64_t i = 0; i < a.n; ++i) common += permutation_at(&a, i) == permutation_at(&b, i);
    return common;
}

static void test_seeds_and_streams_differ(void **state) {
    (void)state;
    enum { N = 10000 };
    struct permutation first = permutation_of(1, 0, N);
    assert_true(places_in_common(first, permutation_of(1, 0, N)) == N);
    assert_in_range(places_in_common(first, permutation_of(1, 1, N)), 0, 12);
    assert_in_range(places_in_common(first, permutation_of(2, 0, N)), 0, 12);
    assert_in_range(places_in_common(first, permutation_of(0, 1, N)), 0, 12);
    int64_t fixed = 0, follow = 0;
    for (int64_t i = 0; i < N; ++i) {
        fixed += permutation_at(&first, i) == i;
        follow += i > 0 && permutation_at(&first, i) == permutation_at(&first, i - 1) + 1;
    }
    assert_in_range(fixed, 0, 12); /* one is expected */
    assert_in_range(follow, 0, 12);
}

/* Where each number stands, over many streams: chi-square of n x n counts has mean (n - 1)^2 and variance
 * 2 (n - 1)^2. */
static void check_uniform(int64_t n) {
    enum { STREAMS = 20000 };
    int64_t *counts = calloc((size_t)(n * n), sizeof *counts);
    double square = 0, expected = (double)STREAMS / (double)n, freedom = (double)((n - 1) * (n - 1));
    for (uint64_t s = 0; s < STREAMS; ++s) {
        struct permutation order = permutation_of(5, s, n);
        for (int64_t i = 0; i < n; ++i) ++counts[i * n + permutation_at(&order, i)];
    }
    for (int64_t i = 0; i < n * n; ++i) square += ((double)counts[i] - expected) * ((double)counts[i] - expected);
    square /= expected;
    free(counts);
    double distance = (square - freedom) * (square - freedom) / (2 * freedom);
    if (distance > 25) fail_msg("n %d: chi-square %g, expected about %g", (int)n, square, freedom); /* 5 deviations */
}

static void test_uniform(void **state) {
    (void)state;
    static const int64_t sizes[] = {2, 3, 4, 5, 7, 8, 16, 17, 40};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) check_uniform(sizes[i]);
}

/* ---- Batches ---- */

enum { COUNT = 10007, ROWS = 16, LENGTH = 200, LAST = COUNT / ROWS };

/* Lengths of which a few are beyond LENGTH. */
static int64_t *make_offsets(void) {
    int64_t *offset = calloc(COUNT + 1, sizeof *offset);
    for (int64_t i = 0; i < COUNT; ++i)
        offset[i + 1] = offset[i] + 1 + (int64_t)(hash_splitmix64((uint64_t)i) % (LENGTH + 20));
    return offset;
}

static int64_t tokens_of(const struct examples *examples, int64_t i) {
    int64_t tokens = examples->offset[i + 1] - examples->offset[i] + 1;
    return tokens < LENGTH ? tokens : LENGTH;
}

/* All examples once, whole batches but the last; returns the symbols of the padded batches. */
static int64_t check_epoch(struct batches *batches, int64_t epoch, int64_t *order) {
    int64_t padded = 0, numbers[ROWS], at = 0;
    char seen[COUNT] = {0};
    for (int64_t b = 0; b < batches_per_epoch(batches); ++b) {
        int64_t n = batches_read(batches, epoch, b, numbers), most = 0;
        assert_int_equal(n, b < LAST ? ROWS : COUNT % ROWS);
        for (int64_t i = 0; i < n; ++i) {
            assert_false(seen[numbers[i]]++);
            order[at++] = numbers[i];
            int64_t tokens = tokens_of(batches->examples, numbers[i]);
            assert_true(tokens >= most);
            most = tokens;
        }
        padded += n * most;
    }
    assert_int_equal(at, COUNT);
    return padded;
}

static void test_epochs(void **state) {
    (void)state;
    static int64_t first[COUNT], second[COUNT], again[COUNT], numbers[ROWS];
    struct examples examples = {.offset = make_offsets(), .count = COUNT};
    struct batches batches;
    int64_t real = 0;
    for (int64_t i = 0; i < COUNT; ++i) real += tokens_of(&examples, i);
    assert_int_equal(batches_init(&batches, &examples, ROWS, LENGTH, 1, false), STATUS_OK);
    assert_int_equal(batches_per_epoch(&batches), LAST + 1);
    assert_true((double)check_epoch(&batches, 0, first) < 1.05 * (double)real);
    check_epoch(&batches, 1, second);
    assert_memory_not_equal(first, second, sizeof first);
    /* A cursor restores the next batch, in any order, from nothing. */
    batches_free(&batches);
    assert_int_equal(batches_init(&batches, &examples, ROWS, LENGTH, 1, false), STATUS_OK);
    for (int64_t b = LAST - 1; b >= 0; b -= 37) {
        assert_int_equal(batches_read(&batches, 1, b, numbers), ROWS);
        assert_memory_equal(numbers, second + b * ROWS, sizeof numbers);
    }
    check_epoch(&batches, 0, again);
    assert_memory_equal(first, again, sizeof first);
    batches_free(&batches);
    assert_int_equal(batches_init(&batches, &examples, ROWS, LENGTH, 2, false), STATUS_OK);
    check_epoch(&batches, 0, again);
    assert_memory_not_equal(first, again, sizeof first);
    batches_free(&batches);
    free(examples.offset);
}

/* Lengths of batches come in no order: their ranks do not rise or fall within a window. */
static void test_batches_are_mixed(void **state) {
    (void)state;
    struct examples examples = {.offset = make_offsets(), .count = COUNT};
    struct batches batches;
    int64_t numbers[ROWS], before = 0;
    int rising = 0;
    assert_int_equal(batches_init(&batches, &examples, ROWS, LENGTH, 1, false), STATUS_OK);
    for (int64_t b = 0; b < LAST; ++b) {
        batches_read(&batches, 0, b, numbers);
        rising += tokens_of(&examples, numbers[0]) > before;
        before = tokens_of(&examples, numbers[0]);
    }
    assert_in_range(rising, LAST / 3, 2 * LAST / 3);
    batches_free(&batches);
    free(examples.offset);
}

static void test_sorted(void **state) {
    (void)state;
    static int64_t order[COUNT], other[COUNT];
    struct examples examples = {.offset = make_offsets(), .count = COUNT};
    struct batches batches;
    assert_int_equal(batches_init(&batches, &examples, ROWS, LENGTH, 1, true), STATUS_OK);
    check_epoch(&batches, 0, order);
    check_epoch(&batches, 3, other);
    assert_memory_equal(order, other, sizeof order);
    for (int64_t i = 1; i < COUNT; ++i) {
        int64_t a = tokens_of(&examples, order[i - 1]), b = tokens_of(&examples, order[i]);
        assert_true(a < b || (a == b && order[i - 1] < order[i]));
    }
    batches_free(&batches);
    free(examples.offset);
}

/* Fewer examples than a batch has rows. */
static void test_small(void **state) {
    (void)state;
    int64_t numbers[ROWS], offset[] = {0, 5, 6, 9};
    struct examples examples = {.offset = offset, .count = 3};
    struct batches batches;
    for (int sorted = 0; sorted < 2; ++sorted) {
        assert_int_equal(batches_init(&batches, &examples, ROWS, LENGTH, 1, sorted), STATUS_OK);
        assert_int_equal(batches_per_epoch(&batches), 1);
        assert_int_equal(batches_read(&batches, 4, 0, numbers), 3);
        assert_memory_equal(numbers, ((int64_t[]){1, 2, 0}), 3 * sizeof *numbers);
        batches_free(&batches);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bijection),
        cmocka_unit_test(test_seeds_and_streams_differ),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_batches_are_mixed),
        cmocka_unit_test(test_sorted),
        cmocka_unit_test(test_small),
    };
    return cmocka_run_group_tests_name("batches", tests, NULL, NULL);
}
