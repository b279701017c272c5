/* Random numbers against the published vectors of Philox4x32-10, and places against docs/step-file.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"

/* Of Random123, kat_vectors: counter, key, result. */
static void known_answers(void **state) {
    (void)state;
    static const uint32_t vectors[][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD},
        {0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0, 0xD16CFE09, 0x94FDCCEB, 0x5001E420,
         0x24126EA1},
    };
    for (int i = 0; i < 3; ++i) {
        const uint32_t *v = vectors[i];
        uint32_t words[4];
        rng_words(words, (struct rng_place){(uint64_t)v[5] << 32 | v[4], v[2], v[3]}, v[1], v[0]);
        for (int j = 0; j < 4; ++j) assert_int_equal(words[j], v[6 + j]);
    }
}

static void places(void **state) {
    (void)state;
    struct rng_place place = rng_place(0x123456789ABCDEF0u, 0x1FFFFFFFFu, RNG_EXPERT, 3, 17);
    assert_int_equal(place.seed, 0x123456789ABCDEF0u);
    assert_int_equal(place.step, 0xFFFFFFFFu);
    assert_int_equal(place.site, 5 + 256 * 3 + 65536 * 17);
}

static void uniform_is_inside(void **state) {
    (void)state;
    assert_true(rng_uniform(0) > 0);
    assert_true(rng_uniform(~0u) < 1);
    assert_true(rng_uniform(0x80000000u) > 0.5 && rng_uniform(0x7FFFFFFFu) < 0.5);
    double sum = 0;
    enum { N = 4096 };
    for (uint32_t i = 0; i < N; ++i) {
        uint32_t words[4];
        rng_words(words, rng_place(1, 0, RNG_INIT, 0, 0), i, 0);
        for (int j = 0; j < 4; ++j) sum += rng_uniform(words[j]) / (4 * N);
    }
    assert_true(sum > 0.49 && sum < 0.51); /* 4 standard deviations */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(places),
        cmocka_unit_test(uniform_is_inside),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
