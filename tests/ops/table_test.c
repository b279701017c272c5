/* Every entry of struct ops is there, and belongs to the program of one family (check.h), which fails where it does
 * not call it. */
#include <stdio.h>
#include <string.h>

#include "tests/ops/check.h"

static const struct op_entry listed[] = {ALL_OPS(OP_ENTRY)};

static void every_entry_has_one_family(void **state) {
    (void)state;
    int times[OP_COUNT] = {0};
    for (int i = 0; i < COUNT(listed); ++i)
        if (++times[listed[i].index] > 1) fail_msg("%s is in two families", listed[i].name);
    for (int i = 0; i < OP_COUNT; ++i)
        if (!times[i])
            fail_msg("entry %d of struct ops (counted from 0, after name) is in no family: add it and its test", i);
}

static void no_entry_is_missing(void **state) {
    (void)state;
    static const char none[sizeof(void (*)(void))];
    test_device.start(2, test_precision());
    assert_string_equal(ops->name, device->name);
    for (int i = 0; i < COUNT(listed); ++i) {
        const char *entry = (const char *)ops + offsetof(struct ops, gemm) + listed[i].index * sizeof none;
        if (!memcmp(entry, none, sizeof none)) fail_msg("%s is NULL", listed[i].name);
    }
}

static void library_has_a_name(void **state) {
    (void)state;
    assert_non_null(ops_library());
    assert_true(strlen(ops_library()) > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_entry_has_one_family),
        cmocka_unit_test(no_entry_is_missing),
        cmocka_unit_test(library_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
