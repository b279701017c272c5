/* The table of operations in front of the device's own: nothing is left out, nothing counted twice, bytes and
 * operations are those of a reader with a pencil, and those of a whole step are the products that the CPU really makes
 * (the linker lets them pass by here). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/device.h"
#include "train/op_times.h"
#include "train/optimizer.h"
#include "train/step.h"

enum { ROOM = 4096 };
static const double R = sizeof(real);
static real room[8][ROOM];
static int32_t ids[ROOM];
static int64_t places[ROOM];
static struct op_times times;

static double made; /* by products inside of operations */

typedef void product(bool, bool, int64_t, int64_t, int64_t, double, const real *, int64_t, const real *, int64_t,
                     double, real *, int64_t);
product __real_cpu_gemm, __wrap_cpu_gemm, __real_cpu_gemm_exact, __wrap_cpu_gemm_exact;

static void add_made(int64_t N, int64_t O, int64_t I) {
#pragma omp atomic
    made += 2.0 * (double)(N * O * I);
}

void __wrap_cpu_gemm(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
                     const real *b, int64_t ldb, double beta, real *c, int64_t ldc) {
    add_made(N, O, I);
    __real_cpu_gemm(ta, tb, N, O, I, alpha, a, lda, b, ldb, beta, c, ldc);
}

void __wrap_cpu_gemm_exact(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
                           const real *b, int64_t ldb, double beta, real *c, int64_t ldc) {
    add_made(N, O, I);
    __real_cpu_gemm_exact(ta, tb, N, O, I, alpha, a, lda, b, ldb, beta, c, ldc);
}

static const struct op_time *time_of(const char *name) {
    for (int i = 0; i < OP_TIMES; ++i)
        if (!strcmp(times.op[i].name, name)) return &times.op[i];
    fail_msg("no operation %s", name);
    return NULL;
}

/* Since op_times_begin. */
static void expect(const char *name, int64_t calls, double bytes, double operations) {
    const struct op_time *op = time_of(name);
    if (op->calls == calls && op->bytes == bytes && op->operations == operations) return;
    fail_msg("%s: %ld calls, %.0f bytes, %.0f operations; expected %ld, %.0f, %.0f", name, (long)op->calls, op->bytes,
             op->operations, (long)calls, bytes, operations);
}

static void every_operation_is_wrapped(void **state) {
    (void)state;
    const struct ops *plain = ops;
    const size_t size = sizeof(void (*)(void));
    static const char none[sizeof(void (*)(void))];
    op_times_begin(&times);
    const char *mine = (const char *)ops + offsetof(struct ops, gemm),
               *others = (const char *)plain + offsetof(struct ops, gemm);
    assert_int_equal(offsetof(struct ops, gemm) + OP_TIMES * size, sizeof(struct ops));
    for (size_t i = 0; i < OP_TIMES; ++i) {
        if (!memcmp(mine + i * size, none, size)) fail_msg("entry %zu is NULL", i);
        if (!memcmp(mine + i * size, others + i * size, size)) fail_msg("entry %zu is the device's own", i);
        for (size_t j = 0; j < i; ++j)
            if (!memcmp(mine + i * size, mine + j * size, size)) fail_msg("entries %zu and %zu are one", i, j);
    }
    assert_string_equal(ops->name, plain->name);
    op_times_end(&times);
    assert_ptr_equal(ops, plain);
    op_times_free(&times);
}

/* What is added to is read and written: so many reals by hand. */
static void elementwise(void **state) {
    (void)state;
    op_times_begin(&times);
    for (int i = 0; i < 3; ++i) ops->copy(room[0], room[1], 100);
    ops->add(room[0], room[0], room[1], 50);
    ops->add_rows(room[0], 20, room[1], 10, 5, 10);
    ops->dropout(room[0], NULL, room[1], (struct dropout){0}, 0, 4, 8);
    ops->dropout(room[0], room[2], room[1], (struct dropout){0}, 0, 4, 8);
    double scale = 1;
    ops->adam(room[0], room[1], room[2], room[3], &scale, 0.1, 0.9, 0.99, 1e-8, 1, 1, 1000);
    ops->gather_rows(room[0], room[1], places, 2, 6, 10);
    ops->combine_forward(room[0], true, room[1], places, room[2], 3, 2, 10);
    ops->top_k(ids, room[0], 7, 5, 2);
    op_times_end(&times);
    expect("copy", 3, 600 * R, 0);
    expect("add", 1, 150 * R, 0);
    expect("add_rows", 1, 150 * R, 0);
    expect("dropout", 2, (64 + 96) * R, 0);
    expect("adam", 1, 7000 * R + 8, 0);
    expect("gather_rows", 1, 90 * R + 48, 0);                /* 3 rows read 6 times, 6 written, 6 indices */
    expect("combine_forward", 1, (60 + 60 + 6) * R + 48, 0); /* out twice, 6 rows, 6 weights, 6 places */
    expect("top_k", 1, 35 * R + 56, 0);
    assert_int_equal(op_times_sum(&times).calls, 11);
    op_times_free(&times);
}

static void products(void **state) {
    (void)state;
    const int64_t begin[] = {0, 3, 3, 8};
    const struct groups groups = {3, begin, begin};
    op_times_begin(&times);
    ops->gemm(false, false, 2, 3, 4, 1, room[0], 4, room[1], 3, 1, room[2], 3);
    ops->gemm_batched(false, false, 2, 3, 4, 1, room[0], 4, 8, room[1], 3, 0, 0, room[2], 3, 6, 5);
    ops->linear_forward(room[0], room[1], room[2], room[3], 6, 5, 4);
    ops->linear_backward(room[0], true, room[1], room[2], room[3], room[4], room[5], 6, 5, 4);
    ops->linear_exact_backward(NULL, false, room[1], NULL, room[3], room[4], room[5], 6, 5, 4);
    ops->grouped_linear_forward(room[0], room[1], room[2], NULL, &groups, 5, 4);
    ops->grouped_linear_backward(room[0], room[1], NULL, room[3], room[4], room[5], &groups, 5, 4);
    op_times_end(&times);
    expect("gemm", 1, (8 + 12 + 2 * 6) * R, 2 * 24);
    expect("gemm_batched", 1, (5 * 8 + 12 + 5 * 6) * R, 5 * 2 * 24);
    expect("linear_forward", 1, (24 + 20 + 5 + 30) * R, 2 * 120);
    /* dout, in, weight; din, dweight and dbias twice */
    expect("linear_backward", 1, (30 + 24 + 20 + 2 * 24 + 2 * 20 + 2 * 5) * R, 2 * 2 * 120);
    expect("linear_exact_backward", 1, (30 + 24 + 2 * 20) * R, 2 * 120);
    /* 8 rows, and weights of the 2 groups that have some */
    expect("grouped_linear_forward", 1, (8 * 4 + 2 * 20 + 8 * 5) * R, 2 * 8 * 20);
    expect("grouped_linear_backward", 1, (8 * 5 + 8 * 4 + 2 * 20 + 8 * 4 + 2 * 2 * 20) * R, 2 * 2 * 8 * 20);
    op_times_free(&times);
}

/* 130 queries, so blocks of 128 and 2, of 132 keys, so the blocks see 130 and 132 of them. */
static void attention(void **state) {
    (void)state;
    const struct attention_shape shape = {.B = 2, .T = 130, .S = 132, .H = 1, .D = 4};
    struct arena arena = {0};
    const double pairs = 128 * 130 + 2 * 132, rows = 2 * 130 * 4, keys = 2 * 132 * 4;
    op_times_begin(&times);
    ops->attention_forward(room[0], room[1], room[2], room[3], room[4], NULL, NULL, NULL, &arena, &shape);
    op_times_end(&times);
    expect("attention_forward", 1, (2 * rows + 2 * keys + 260) * R, 2 * 2 * 2 * 4 * pairs);
    op_times_free(&times);
    op_times_begin(&times);
    ops->attention_backward(room[0], room[1], room[2], room[3], room[3] + 1000, room[3] + 2000, room[4], room[4],
                            room[5], room[6], room[6], room[6], room[7], room[7] + 1000, room[7] + 2000, &arena,
                            &shape);
    op_times_end(&times);
    expect("attention_backward", 1, (4 * rows + 4 * keys + 260 + 2 * 132 * 4 + 6 * 4) * R, 8 * 2 * 2 * 4 * pairs);
    assert_int_equal(op_times_sum(&times).calls, 1); /* what it calls is its own */
    op_times_free(&times);
    arena_free(&arena);
}

/* The same numbers with the table in between. */
static void results_are_the_same(void **state) {
    (void)state;
    for (int i = 0; i < 64; ++i) room[1][i] = (real)(i % 7), room[2][i] = (real)(i % 5);
    ops->linear_forward(room[3], room[1], room[2], NULL, 8, 8, 8);
    op_times_begin(&times);
    ops->linear_forward(room[4], room[1], room[2], NULL, 8, 8, 8);
    bool finite = ops->all_finite(room[4], 64);
    room[4][64] = (real)NAN;
    bool not_finite = ops->all_finite(room[4], 65);
    op_times_end(&times);
    assert_memory_equal(room[3], room[4], 64 * sizeof(real));
    assert_true(finite && !not_finite);
    op_times_free(&times);
}

static void step_of(const char *const *overrides, int n) {
    struct config config;
    struct model model;
    struct step step;
    struct comm *world = comm_self_new();
    assert_int_equal(config_load(&config, NULL, 0, overrides, n), STATUS_OK);
    assert_int_equal(model_init(&model, &config, 205, 0, world, true), STATUS_OK);
    model_start(&model);
    step_init(&step, &model);
    int32_t *tokens = calloc((size_t)(step.rows * config.model.segment), sizeof *tokens);
    for (int64_t i = 0; i < step.rows * config.model.segment; ++i) tokens[i] = (int32_t)(i * 7919 % 205);
    step_gradients(&step, 0, NULL, tokens, tokens);
    made = 0;
    op_times_begin(&times);
    double from = clock_seconds();
    step_gradients(&step, 1, NULL, tokens, tokens);
    optimizer_update(&model, 1);
    model_after_step(&model, 1);
    double seconds = clock_seconds() - from;
    op_times_end(&times);
    free(tokens);
    step_free(&step);
    model_free(&model);
    comm_free(world);
    assert_true(op_times_sum(&times).seconds > 0 && op_times_sum(&times).seconds <= seconds);
}

static void operations_are_those_of_the_cpu(void **state) {
    (void)state;
    const char *base[] = {"model.layers=2",    "model.d_model=64",  "model.heads=4",
                          "model.d_head=16",   "model.d_inner=128", "moe.experts=4",
                          "model.segment=192", "model.memory=100",  "train.batch=3"};
    const char *shapes[][3] = {{"moe.mode=joint", "router.top_k=1", "model.norm=post"},
                               {"moe.mode=continuous", "router.top_k=2", "model.norm=pre"},
                               {"router.kind=dense", "moe.mode=continuous", "model.norm=post"},
                               {"moe.mode=discrete", "train.accumulate=2", "model.norm=pre"},
                               {"quantizer.kind=online_clustered", "moe.mode=joint", "quantizer.codes=6"},
                               {"moe.mode=joint", "model.attention=absolute", "model.memory=0"}};
    enum { BASE = sizeof base / sizeof *base };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
        const char *all[BASE + 3];
        for (int j = 0; j < BASE; ++j) all[j] = base[j];
        for (int j = 0; j < 3; ++j) all[BASE + j] = shapes[i][j];
        step_of(all, BASE + 3);
        /* These two are the products themselves. */
        double inside =
            op_times_sum(&times).operations - time_of("gemm")->operations - time_of("gemm_batched")->operations;
        double listed = products_operations(&times.products);
        print_message("%s %s %s: %.0f operations, %.0f made\n", shapes[i][0], shapes[i][1], shapes[i][2], inside, made);
        assert_true(made > 0 && inside == made);
        assert_true(listed == op_times_sum(&times).operations);
        op_times_free(&times);
    }
}

int main(void) {
    ops_init_cpu(2, PRECISION_FP32);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_is_wrapped),
        cmocka_unit_test(elementwise),
        cmocka_unit_test(products),
        cmocka_unit_test(attention),
        cmocka_unit_test(results_are_the_same),
        cmocka_unit_test(operations_are_those_of_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
