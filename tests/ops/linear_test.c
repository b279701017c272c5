/* Matrix products against three loops; factors go through factor(). Sizes: N, O, I, and how many or groups. */
#include <math.h>
#include <string.h>

#include "tests/ops/check.h"

/* `count` products whose matrices have longer rows than they use, and lie apart: what lies between must stay. share: a
 * and b are the same for all (1, 2). */
static void multiply(const struct op_case *c, bool transpose_a, bool transpose_b, double alpha, double beta, int share,
                     int64_t count) {
    int64_t N = c->size[0], O = c->size[1], I = c->size[2];
    int64_t lda = (transpose_a ? N : I) + 3, ldb = (transpose_b ? I : O) + 2, ldc = O + 1;
    int64_t a_size = (transpose_a ? I : N) * lda, b_size = (transpose_b ? O : I) * ldb, c_size = N * ldc + 5;
    int64_t stride_a = share & 1 ? 0 : a_size, stride_b = share & 2 ? 0 : b_size;
    double *a = random_doubles(count * a_size), *b = random_doubles(count * b_size);
    double *expected = random_doubles(count * c_size);
    real *out = reals(expected, count * c_size), *kept = reals(expected, count * c_size);
    real *a_real = reals(a, count * a_size), *b_real = reals(b, count * b_size);
    for (int64_t k = 0; k < count; ++k)
        for (int64_t n = 0; n < N; ++n)
            for (int64_t o = 0; o < O; ++o) {
                const double *x = a + k * stride_a, *y = b + k * stride_b;
                double sum = 0, *z = &expected[k * c_size + n * ldc + o];
                for (int64_t i = 0; i < I; ++i)
                    sum += factor(x[transpose_a ? i * lda + n : n * lda + i]) *
                           factor(y[transpose_b ? o * ldb + i : i * ldb + o]);
                *z = alpha * sum + (beta == 0 ? 0 : beta * *z);
                if (beta == 0) out[k * c_size + n * ldc + o] = (real)NAN; /* not read */
            }
    if (count == 1)
        RUN(gemm, transpose_a, transpose_b, N, O, I, alpha, a_real, lda, b_real, ldb, beta, out, ldc);
    else
        RUN(gemm_batched, transpose_a, transpose_b, N, O, I, alpha, a_real, lda, stride_a, b_real, ldb, stride_b, beta,
            out, ldc, c_size, count);
    KEEP_SUMS(out, count * c_size);
    expect_close("gemm", out, expected, count * c_size, TOLERANCE);
    for (int64_t i = 0; i < count * c_size; ++i)
        if (i % c_size >= N * ldc || i % c_size % ldc == O) assert_true(out[i] == kept[i]);
}

static const double scales[][2] = {{1, 0}, {1, 1}, {-2, 0.5}};

static void gemm(const struct op_case *c) {
    for (int transposes = 0; transposes < 4; ++transposes)
        for (int i = 0; i < COUNT(scales); ++i)
            multiply(c, transposes & 1, transposes & 2, scales[i][0], scales[i][1], 0, 1);
}

static void gemm_batched(const struct op_case *c) {
    for (int transposes = 0; transposes < 4; ++transposes)
        for (int i = 0; i < COUNT(scales); ++i)
            multiply(c, transposes & 1, transposes & 2, scales[i][0], scales[i][1], (transposes + i) % 4, c->size[3]);
}

/* Products with 1 alone: every value comes out as it was, or rounded where this run rounds; ties to even. */
static void gemm_rounds(const struct op_case *c) {
    const double values[] = {
        1,    1 + 0x1p-8,  1 + 0x3p-8, 1 + 0x1.01p-8, -1 - 0x1p-8, 1 - 0x1p-9, 3.3895313892515355e38,
        1e30, 0x1.ffp-100, -0x1.03p5,  INFINITY,      -INFINITY,   0};
    const double rounded[] = {1,       1,         1 + 0x1p-6, 1 + 0x1p-7, -1, 1, 3.3895313892515355e38, factor(1e30),
                              0x1p-99, -0x1.04p5, INFINITY,   -INFINITY,  0};
    int64_t n = COUNT(values);
    bool rounds = test_precision() == PRECISION_BF16;
    double one[1] = {1};
    real *x = reals(values, n), *y = reals(one, 1), *out = TAKE(real, n);
    (void)c;
    for (int side = 0; side < 2; ++side) {
        if (side)
            RUN(gemm, false, false, 1, n, 1, 1, y, 1, x, n, 0, out, n);
        else
            RUN(gemm, false, false, n, 1, 1, 1, x, 1, y, 1, 0, out, 1);
        for (int64_t i = 0; i < n; ++i) assert_true(out[i] == (real)(rounds ? rounded[i] : values[i]));
    }
    const uint32_t nans[] = {0x7F800001u, 0xFFFFFFFFu, 0x7FC00000u}; /* rounding up must not make them infinite or 0 */
    for (int i = 0; i < COUNT(nans) && sizeof *x == sizeof *nans; ++i) {
        memcpy(x, &nans[i], sizeof *nans);
        RUN(gemm, false, false, 1, 1, 1, 1, x, 1, y, 1, 0, out, 1);
        assert_true(isnan(out[0]));
    }
}

enum { IN, WEIGHT, BIAS };

static void linear_exact_forward(real *out, const struct problem *p);

static double own_factor(const struct problem *p, double x) {
    return p->forward == linear_exact_forward ? x : factor(x);
}

/* The groups that begin at index; a layer without has one. */
static int64_t group_count(const struct problem *p) { return p->c->size[3] ? p->c->size[3] : 1; }

static struct groups groups_of(const struct problem *p) {
    return (struct groups){.count = group_count(p), .begin = p->index, .begin_here = p->index};
}

static void linear_reference(double *out, const struct problem *p) {
    int64_t O = p->c->size[1], I = p->c->size[2];
    for (int64_t g = 0; g < group_count(p); ++g) {
        const double *weight = p->in[WEIGHT].x + g * O * I, *bias = p->in[BIAS].x;
        for (int64_t n = p->index[g]; n < p->index[g + 1]; ++n)
            for (int64_t o = 0; o < O; ++o) {
                out[n * O + o] = bias ? bias[g * O + o] : 0;
                for (int64_t i = 0; i < I; ++i)
                    out[n * O + o] += own_factor(p, p->in[IN].x[n * I + i]) * own_factor(p, weight[o * I + i]);
            }
    }
}

static void linear_gradient(double *gradient, const struct problem *p, int wanted) {
    int64_t O = p->c->size[1], I = p->c->size[2];
    for (int64_t i = 0; i < p->in[wanted].n; ++i) gradient[i] = 0;
    for (int64_t g = 0; g < group_count(p); ++g)
        for (int64_t n = p->index[g]; n < p->index[g + 1]; ++n)
            for (int64_t o = 0; o < O; ++o) {
                double dout = own_factor(p, p->dout[n * O + o]);
                if (wanted == BIAS) gradient[g * O + o] += p->dout[n * O + o];
                for (int64_t i = 0; i < I && wanted == IN; ++i)
                    gradient[n * I + i] += dout * own_factor(p, p->in[WEIGHT].x[(g * O + o) * I + i]);
                for (int64_t i = 0; i < I && wanted == WEIGHT; ++i)
                    gradient[(g * O + o) * I + i] += dout * own_factor(p, p->in[IN].x[n * I + i]);
            }
}

static void linear_forward(real *out, const struct problem *p) {
    const int64_t *s = p->c->size;
    RUN(linear_forward, out, p->in[IN].r, p->in[WEIGHT].r, p->in[BIAS].r, s[0], s[1], s[2]);
}

static void linear_exact_forward(real *out, const struct problem *p) {
    const int64_t *s = p->c->size;
    RUN(linear_exact_forward, out, p->in[IN].r, p->in[WEIGHT].r, p->in[BIAS].r, s[0], s[1], s[2]);
}

static void grouped_forward(real *out, const struct problem *p) {
    struct groups groups = groups_of(p);
    RUN(grouped_linear_forward, out, p->in[IN].r, p->in[WEIGHT].r, p->in[BIAS].r, &groups, p->c->size[1],
        p->c->size[2]);
}

/* The same call for the two layers without groups. */
static void run_backward(const struct problem *p, real *din, real *dweight, real *dbias) {
    const int64_t *s = p->c->size;
    bool add_din = p->in[IN].flags & ADDS;
    if (p->forward == linear_exact_forward)
        RUN(linear_exact_backward, din, add_din, dweight, dbias, p->dout, p->in[IN].r, p->in[WEIGHT].r, s[0], s[1],
            s[2]);
    else
        RUN(linear_backward, din, add_din, dweight, dbias, p->dout, p->in[IN].r, p->in[WEIGHT].r, s[0], s[1], s[2]);
}

static void linear_backward(const struct problem *p) { run_backward(p, p->in[IN].g, p->in[WEIGHT].g, p->in[BIAS].g); }

static void grouped_backward(const struct problem *p) {
    struct groups groups = groups_of(p);
    RUN(grouped_linear_backward, p->in[IN].g, p->in[WEIGHT].g, p->in[BIAS].g, p->dout, p->in[IN].r, p->in[WEIGHT].r,
        &groups, p->c->size[1], p->c->size[2]);
}

static struct problem linear_problem(const struct op_case *c, void (*forward)(real *out, const struct problem *p),
                                     void (*backward)(const struct problem *p), int in_flags) {
    int64_t N = c->size[0], O = c->size[1], I = c->size[2], G = c->size[3] ? c->size[3] : 1;
    struct problem p = {
        .c = c,
        .reference = linear_reference,
        .forward = forward,
        .backward = backward,
        .gradient = linear_gradient,
        .outputs = N * O,
        .index = TAKE(int64_t, G + 1),
    };
    random_groups(p.index, N, G);
    problem_input(&p, "in", N * I, in_flags);
    problem_input(&p, "weight", G * O * I, ADDS);
    if (!c->flag) problem_input(&p, "bias", G * O, ADDS);
    return p;
}

/* flag: no bias, and the gradient of in adds */
static void check_linear(const struct op_case *c, void (*forward)(real *out, const struct problem *p)) {
    int64_t N = c->size[0], O = c->size[1], I = c->size[2];
    struct problem p = linear_problem(c, forward, linear_backward, c->flag ? ADDS : 0);
    check_problem(&p);
    /* without the gradient of in: that of the weight is the same */
    real *dweight = TAKE(real, O * I);
    for (int64_t i = 0; i < O * I; ++i) dweight[i] = 0;
    run_backward(&p, NULL, dweight, NULL);
    assert_memory_equal(dweight, p.in[WEIGHT].g, (size_t)(O * I) * sizeof *dweight);
    /* without that of the weight: those of in and bias are the same */
    real *din = TAKE(real, N * I), *dbias = TAKE(real, O);
    for (int64_t i = 0; i < N * I; ++i) din[i] = 0;
    for (int64_t i = 0; i < O; ++i) dbias[i] = 0;
    run_backward(&p, din, NULL, c->flag ? NULL : dbias);
    assert_memory_equal(din, p.in[IN].g, (size_t)(N * I) * sizeof *din);
    if (!c->flag) assert_memory_equal(dbias, p.in[BIAS].g, (size_t)O * sizeof *dbias);
}

static void linear(const struct op_case *c) { check_linear(c, linear_forward); }

static void linear_exact(const struct op_case *c) { check_linear(c, linear_exact_forward); }

/* flag: no bias. Empty groups keep the very bits of their gradients. */
static void grouped(const struct op_case *c) {
    struct problem p = linear_problem(c, grouped_forward, grouped_backward, 0);
    check_problem(&p);
    real *kept[3] = {NULL};
    for (int i = WEIGHT; i < p.inputs; ++i) {
        p.in[i].g = random_reals(p.in[i].n);
        kept[i] = memcpy(TAKE(real, p.in[i].n), p.in[i].g, (size_t)p.in[i].n * sizeof(real));
    }
    grouped_backward(&p);
    for (int i = WEIGHT; i < p.inputs; ++i) {
        int64_t size = p.in[i].n / group_count(&p);
        for (int64_t g = 0; g < group_count(&p); ++g) {
            bool same = !memcmp(p.in[i].g + g * size, kept[i] + g * size, (size_t)size * sizeof(real));
            assert_int_equal(same, p.index[g] == p.index[g + 1]);
        }
    }
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
    {"gemm_batched", gemm_batched, .size = {3, 5, 4, 0}},
    {"gemm_batched", gemm_batched, .size = {0, 3, 5, 3}},
    {"gemm_batched", gemm_batched, .size = {3, 2, 0, 3}},
    {"gemm_batched", gemm_batched, .size = {17, 3, 9, 5}},
    {"gemm_batched", gemm_batched, .size = {33, 65, 20, 3}},
    {"gemm_rounds", gemm_rounds, .size = {13, 1, 1}},
    {"linear", linear, .size = {0, 3, 5}},
    {"linear", linear, .size = {0, 3, 5}, .flag = true},
    {"linear", linear, .size = {1, 1, 1}},
    {"linear", linear, .size = {3, 3, 5}},
    {"linear", linear, .size = {3, 3, 5}, .flag = true},
    {"linear", linear, .size = {17, 65, 3}},
    {"linear", linear, .size = {130, 17, 65}, .flag = true},
    {"linear", linear, .size = {130, 150, 33}}, /* all threads add the bias */
    {"linear_exact", linear_exact, .size = {0, 3, 5}},
    {"linear_exact", linear_exact, .size = {1, 1, 1}},
    {"linear_exact", linear_exact, .size = {17, 65, 3}},
    {"linear_exact", linear_exact, .size = {130, 17, 65}, .flag = true},
    {"grouped", grouped, .size = {0, 3, 5, 3}},
    {"grouped", grouped, .size = {1, 1, 1, 1}},
    {"grouped", grouped, .size = {5, 3, 4, 7}},
    {"grouped", grouped, .size = {65, 17, 33, 4}, .flag = true},
    {"grouped", grouped, .size = {130, 33, 17, 5}},
};

int main(void) { return RUN_CASES("linear", cases, LINEAR_OPS); }
