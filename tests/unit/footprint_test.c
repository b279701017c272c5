/* The memory formula against what steps really take, over the shapes that change it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "train/footprint.h"

/* Arena peak over the formula with V symbols, once memory is full. */
static double measure(const char *const *overrides, int n, int64_t V) {
    struct config config;
    struct model model;
    struct step step;
    struct comm *world = comm_self_new();
    assert_int_equal(config_load(&config, NULL, 0, overrides, n), STATUS_OK);
    assert_int_equal(model_init(&model, &config, V, 0, world, true), STATUS_OK);
    model_start(&model);
    step_init(&step, &model);
    int32_t *tokens = calloc((size_t)(step.rows * config.model.segment), sizeof *tokens);
    for (int64_t i = 0; i < step.rows * config.model.segment; ++i) tokens[i] = (int32_t)(i * 7919 % V);
    for (int64_t i = 0; i < 3; ++i) step_gradients(&step, i, NULL, tokens, tokens);
    double ratio = (double)step.arenas.here.peak / footprint_of(&step).activations;
    free(tokens);
    step_free(&step);
    model_free(&model);
    comm_free(world);
    return ratio;
}

static void formula_holds(void **state) {
    (void)state;
    const char *base[] = {"model.layers=2",    "model.d_model=64",  "model.heads=4",
                          "model.d_head=32",   "model.d_inner=128", "moe.experts=4",
                          "model.segment=128", "model.memory=128",  "train.batch=16"};
    const char *shapes[][3] = {{"moe.mode=joint", "router.top_k=1", "model.norm=post"},
                               {"moe.mode=continuous", "router.top_k=2", "model.norm=post"},
                               {"moe.mode=discrete", "router.top_k=1", "model.norm=pre"},
                               {"moe.mode=joint", "router.top_k=2", "train.accumulate=3"},
                               {"moe.mode=joint", "model.attention=absolute", "model.memory=0"},
                               {"model.logits_mib=20", "train.accumulate=8", "moe.mode=discrete"},
                               {"model.softmax=adaptive", "model.cutoffs=500,4000", "model.tied=false"}};
    const int64_t V[] = {205, 205, 205, 205, 205, 30011, 30011};
    enum { BASE = sizeof base / sizeof *base };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
        const char *all[BASE + 3];
        for (int j = 0; j < BASE; ++j) all[j] = base[j];
        for (int j = 0; j < 3; ++j) all[BASE + j] = shapes[i][j];
        double ratio = measure(all, BASE + 3, V[i]);
        print_message("%s %s %s: %.3f of the formula\n", shapes[i][0], shapes[i][1], shapes[i][2], ratio);
        assert_true(ratio > 0.9 && ratio < 1.15);
    }
}

int main(void) {
    ops_init_cpu(2, PRECISION_FP32);
    const struct CMUnitTest tests[] = {cmocka_unit_test(formula_holds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
