/* Matrix products against three loops. Sizes: N, O, I. */
#include <math.h>

#include "tests/ops/check.h"

/* Matrices with longer rows than they use: what lies between must stay. */
static void gemm_one(const struct op_case *c, bool transpose_a, bool transpose_b, double alpha, double beta) {
    int64_t N = c->size[0], O = c->size[1], I = c->size[2];
    int64_t lda = (transpose_a ? N : I) + 3, ldb = (transpose_b ? I : O) + 2, ldc = O + 1;
    int64_t a_size = (transpose_a ? I : N) * lda, b_size = (transpose_b ? O : I) * ldb;
    double *a = random_doubles(a_size), *b = random_doubles(b_size), *expected = random_doubles(N * ldc);
    real *out = reals(expected, N * ldc), *a_real = reals(a, a_size), *b_real = reals(b, b_size);
    for (int64_t n = 0; n < N; ++n)
        for (int64_t o = 0; o < O; ++o) {
            double sum = 0;
            for (int64_t i = 0; i < I; ++i)
                sum += a[transpose_a ? i * lda + n : n * lda + i] * b[transpose_b ? o * ldb + i : i * ldb + o];
            expected[n * ldc + o] = alpha * sum + (beta == 0 ? 0 : beta * expected[n * ldc + o]);
            if (beta == 0) out[n * ldc + o] = (real)NAN; /* not read */
        }
    OP(gemm)(transpose_a, transpose_b, N, O, I, alpha, a_real, lda, b_real, ldb, beta, out, ldc);
    KEEP_SUMS(out, N * ldc);
    expect_close("gemm", out, expected, N * ldc, TOLERANCE);
    for (int64_t n = 0; n < N; ++n) assert_true(out[n * ldc + O] == (real)expected[n * ldc + O]);
}

static void gemm(const struct op_case *c) {
    const double scales[][2] = {{1, 0}, {1, 1}, {-2, 0.5}};
    for (int transposes = 0; transposes < 4; ++transposes)
        for (int i = 0; i < COUNT(scales); ++i) gemm_one(c, transposes & 1, transposes & 2, scales[i][0], scales[i][1]);
}

static void linear_reference(double *out, const struct problem *p) {
    const double *in = p->in[0].x, *weight = p->in[1].x, *bias = p->in[2].x;
    int64_t N = p->c->size[0], O = p->c->size[1], I = p->c->size[2];
    for (int64_t n = 0; n < N; ++n)
        for (int64_t o = 0; o < O; ++o) {
            out[n * O + o] = bias ? bias[o] : 0;
            for (int64_t i = 0; i < I; ++i) out[n * O + o] += in[n * I + i] * weight[o * I + i];
        }
}

static void linear_forward(real *out, const struct problem *p) {
    const int64_t *s = p->c->size;
    OP(linear_forward)(out, p->in[0].r, p->in[1].r, p->in[2].r, s[0], s[1], s[2]);
}

static void linear_backward(const struct problem *p) {
    const int64_t *s = p->c->size;
    bool add_din = p->in[0].flags & ADDS;
    OP(linear_backward)
    (p->in[0].g, add_din, p->in[1].g, p->in[2].g, p->dout, p->in[0].r, p->in[1].r, s[0], s[1], s[2]);
}

/* flag: no bias, and the gradient of in adds */
static void linear(const struct op_case *c) {
    int64_t N = c->size[0], O = c->size[1], I = c->size[2];
    struct problem p = {
        .c = c,
        .reference = linear_reference,
        .forward = linear_forward,
        .backward = linear_backward,
        .outputs = N * O,
    };
    problem_input(&p, "in", N * I, c->flag ? ADDS : 0);
    problem_input(&p, "weight", O * I, ADDS);
    if (!c->flag) problem_input(&p, "bias", O, ADDS);
    check_problem(&p);
    /* without the gradient of in: that of the weight is the same */
    real *dweight = TAKE(real, O * I);
    for (int64_t i = 0; i < O * I; ++i) dweight[i] = 0;
    OP(linear_backward)(NULL, false, dweight, NULL, p.dout, p.in[0].r, p.in[1].r, N, O, I);
    assert_memory_equal(dweight, p.in[1].g, (size_t)(O * I) * sizeof *dweight);
    /* without that of the weight: those of in and bias are the same */
    real *din = TAKE(real, N * I), *dbias = TAKE(real, O);
    for (int64_t i = 0; i < N * I; ++i) din[i] = 0;
    for (int64_t i = 0; i < O; ++i) dbias[i] = 0;
    OP(linear_backward)(din, c->flag, NULL, c->flag ? NULL : dbias, p.dout, p.in[0].r, p.in[1].r, N, O, I);
    assert_memory_equal(din, p.in[0].g, (size_t)(N * I) * sizeof *din);
    if (!c->flag) assert_memory_equal(dbias, p.in[2].g, (size_t)O * sizeof *dbias);
}

static const struct op_case cases[] = {
    {"gemm", gemm, .size = {0, 3, 5}},
    {"gemm", gemm, .size = {3, 0, 5}},
    {"gemm", gemm, .size = {3, 5, 0}},
    {"gemm", gemm, .size = {1, 1, 1}},
    {"gemm", gemm, .size = {3, 17, 1}},
    {"gemm", gemm, .size = {1, 65, 17}},
    {"gemm", gemm, .size = {65, 3, 130}},
    {"gemm", gemm, .size = {129, 65, 67}},
    {"linear", linear, .size = {0, 3, 5}},
    {"linear", linear, .size = {0, 3, 5}, .flag = true},
    {"linear", linear, .size = {1, 1, 1}},
    {"linear", linear, .size = {3, 3, 5}},
    {"linear", linear, .size = {3, 3, 5}, .flag = true},
    {"linear", linear, .size = {17, 65, 3}},
    {"linear", linear, .size = {130, 17, 65}, .flag = true},
    {"linear", linear, .size = {130, 150, 33}}, /* all threads add the bias */
};

int main(void) { return RUN_CASES("linear", cases, LINEAR_OPS); }
