/* Operations on one element at a time, sums, counts, dropout, and Adam. Sizes: n, or N, D. */
#include <math.h>
#include <string.h>

#include "tests/ops/check.h"

static void fill_copy_add(const struct op_case *c) {
    int64_t n = c->size[0];
    double *a = random_doubles(n), *b = random_doubles(n), *expected = TAKE(double, n);
    real *a_real = reals(a, n), *b_real = reals(b, n), *out = TAKE(real, n);
    size_t bytes = (size_t)n * sizeof *out;
    RUN(fill, out, (real)-2.5, n);
    for (int64_t i = 0; i < n; ++i) assert_true(out[i] == (real)-2.5);
    RUN(copy, out, a_real, n);
    assert_memory_equal(out, a_real, bytes);
    RUN(add, out, a_real, b_real, n);
    for (int64_t i = 0; i < n; ++i) assert_true(out[i] == a_real[i] + b_real[i]);
    real *onto_a = reals(a, n), *onto_b = reals(b, n);
    RUN(add, onto_a, onto_a, b_real, n);
    RUN(add, onto_b, a_real, onto_b, n);
    assert_memory_equal(onto_a, out, bytes);
    assert_memory_equal(onto_b, out, bytes);
    RUN(add_scaled, b_real, a_real, -0.3, n);
    for (int64_t i = 0; i < n; ++i) expected[i] = b[i] - 0.3 * a[i];
    expect_close("add_scaled", b_real, expected, n, TOLERANCE);
    RUN(add_scaled, b_real, b_real, 0.5, n);
    for (int64_t i = 0; i < n; ++i) expected[i] *= 1.5;
    expect_close("add_scaled of itself", b_real, expected, n, TOLERANCE);
    KEEP_ROWS(out, n);
    KEEP_ROWS(b_real, n);
}

/* Rows apart: what lies between stays. */
static void rows_apart(const struct op_case *c) {
    int64_t N = c->size[0], D = c->size[1], wide = D + 3, narrow = D + 1;
    double *in = random_doubles(N * narrow), *expected = random_doubles(N * wide);
    real *in_real = reals(in, N * narrow), *out = reals(expected, N * wide);
    RUN(add_rows, out, wide, in_real, narrow, N, D);
    KEEP_ROWS(out, N * wide);
    for (int64_t n = 0; n < N; ++n)
        for (int64_t i = 0; i < D; ++i) expected[n * wide + i] += in[n * narrow + i];
    expect_close("add_rows", out, expected, N * wide, TOLERANCE);
    RUN(copy_rows, out, wide, in_real, narrow, N, D);
    for (int64_t n = 0; n < N; ++n) {
        assert_memory_equal(out + n * wide, in_real + n * narrow, (size_t)D * sizeof *out);
        for (int64_t i = D; i < wide; ++i) assert_true(out[n * wide + i] == (real)expected[n * wide + i]);
    }
    RUN(copy_rows, in_real, D, out, wide, N, D); /* close together */
    for (int64_t n = 0; n < N; ++n) assert_memory_equal(in_real + n * D, out + n * wide, (size_t)D * sizeof *out);
}

/* N ids in rows of K: a column of them, what is left of it by a divisor, and how often each of M is there; flag: one
 * of three is nobody's. */
static void counting(const struct op_case *c) {
    int64_t N = c->size[0], K = c->size[1], M = c->size[2], divisor = M / 2 + 1;
    int32_t *in = random_ids(N * K, M), *column = TAKE(int32_t, N), *rest = TAKE(int32_t, N);
    double *counts = TAKE(double, M), *expected = TAKE(double, M);
    RUN(take_column, column, in + K - 1, N, K);
    RUN(modulo, rest, column, divisor, N);
    for (int64_t n = 0; n < N; ++n) {
        assert_int_equal(column[n], in[n * K + K - 1]);
        assert_int_equal(rest[n], column[n] % divisor);
    }
    for (int64_t m = 0; m < M; ++m) expected[m] = 0;
    for (int64_t i = 0; i < N * K; ++i) {
        if (c->flag && random_below(3) == 0) in[i] = -1 - (int32_t)random_below(5);
        if (in[i] >= 0) expected[in[i]]++;
    }
    RUN(histogram, counts, in, N * K, M);
    KEEP_ROWS(counts, M);
    assert_memory_equal(counts, expected, (size_t)M * sizeof *counts);
}

static void sums(const struct op_case *c) {
    int64_t n = c->size[0];
    double *x = random_doubles(n), plain = 0, squares = 0, size = 1;
    real *in = reals(x, n);
    for (int64_t i = 0; i < n; ++i) {
        plain += x[i];
        squares += x[i] * x[i];
        size += fabs(x[i]);
    }
    double *got = TAKE(double, 2);
    RUN(sum, &got[0], in, n);
    RUN(sum_squares, &got[1], in, n);
    KEEP_ROWS(got, 2);
    assert_true(fabs(got[0] - plain) <= 1e-12 * size);
    assert_true(fabs(got[1] - squares) <= 1e-12 * (1 + squares));
}

/* One bad value anywhere is found; the largest finite ones are not bad. */
static void all_finite(const struct op_case *c) {
    int64_t n = c->size[0];
    real *in = random_reals(n);
    const real bad[] = {(real)NAN, (real)INFINITY, (real)-INFINITY},
               largest = sizeof(real) == 4 ? (real)3.4e38 : (real)1e308;
    assert_true(OP(all_finite)(in, n));
    for (int64_t i = 0; i < n; i += i < n - 1 && i + 97 >= n ? n - 1 - i : 97) {
        real kept = in[i];
        for (int j = 0; j < COUNT(bad); ++j) {
            in[i] = bad[j];
            assert_false(OP(all_finite)(in, n));
        }
        in[i] = i % 2 ? largest : -largest;
        assert_true(OP(all_finite)(in, n));
        in[i] = kept;
    }
}

static const int64_t row_first = 12345;

/* The mask is the definition's, element by element; the result may lie on either input; it is its own backward. */
static void dropout(const struct op_case *c) {
    int64_t N = c->size[0], D = c->size[1], kept = 0;
    struct dropout place = some_dropout(c->p);
    double *in = random_doubles(N * D), *residual = random_doubles(N * D), *expected = TAKE(double, N *D);
    real *in_real = reals(in, N * D), *residual_real = reals(residual, N * D), *out = TAKE(real, N * D);
    RUN(dropout, out, NULL, in_real, place, row_first, N, D);
    KEEP_ROWS(out, N * D);
    for (int64_t i = 0; i < N * D; ++i) {
        double factor = dropout_factor(&place, row_first + i / D, i % D);
        assert_true((factor > 0) == (out[i] != 0 || in[i] == 0));
        kept += factor > 0;
        expected[i] = factor * in[i];
    }
    expect_close("dropout", out, expected, N * D, TOLERANCE);
    if (N * D > 10000) assert_true(fabs((double)kept / (double)(N * D) - (1 - c->p)) < 0.02);
    for (int64_t i = 0; i < N * D; ++i) expected[i] += residual[i];
    RUN(dropout, out, residual_real, in_real, place, row_first, N, D);
    expect_close("dropout onto a residual", out, expected, N * D, TOLERANCE);
    real *onto_in = reals(in, N * D);
    RUN(dropout, onto_in, residual_real, onto_in, place, row_first, N, D);
    assert_memory_equal(onto_in, out, (size_t)(N * D) * sizeof *out);
    RUN(dropout, residual_real, residual_real, in_real, place, row_first, N, D);
    assert_memory_equal(residual_real, out, (size_t)(N * D) * sizeof *out);
}

/* index: where the groups begin, then the rows of dropout. */
static struct groups groups_of(const struct problem *p) {
    return (struct groups){.count = p->c->size[2], .begin = p->index, .begin_here = p->index};
}

static const int64_t *rows_of(const struct problem *p) { return p->c->p > 0 ? p->index + p->c->size[2] + 1 : NULL; }

static void relu_reference(double *out, const struct problem *p) {
    int64_t D = p->c->size[1];
    const int64_t *rows = rows_of(p);
    for (int64_t g = 0; g < p->c->size[2]; ++g) {
        struct dropout dropout = p->dropout;
        dropout.place.site += 65536 * (uint32_t)g;
        for (int64_t n = p->index[g]; n < p->index[g + 1]; ++n)
            for (int64_t i = 0; i < D; ++i)
                out[n * D + i] = fmax(p->in[0].x[n * D + i] + p->in[1].x[g * D + i], 0) *
                                 (rows ? dropout_factor(&dropout, rows[n], i) : 1);
    }
}

static void relu_forward(real *out, const struct problem *p) {
    int64_t N = p->c->size[0], D = p->c->size[1];
    struct groups groups = groups_of(p);
    memcpy(out, p->in[0].r, (size_t)(N * D) * sizeof *out);
    RUN(grouped_relu_forward, out, p->in[1].r, rows_of(p), p->dropout, &groups, D);
}

static void relu_backward(const struct problem *p) {
    int64_t N = p->c->size[0], D = p->c->size[1];
    struct groups groups = groups_of(p);
    memcpy(p->in[0].g, p->dout, (size_t)(N * D) * sizeof *p->dout);
    RUN(grouped_relu_backward, p->in[0].g, p->in[1].g, p->out, p->dropout, &scratch, &groups, D);
}

/* size[2]: groups */
static void relu(const struct op_case *c) {
    int64_t N = c->size[0], D = c->size[1], G = c->size[2];
    struct problem p = {
        .c = c,
        .reference = relu_reference,
        .forward = relu_forward,
        .backward = relu_backward,
        .outputs = N * D,
        .flags = ROWS,
        .dropout = some_dropout(c->p),
        .index = TAKE(int64_t, G + 1 + N),
    };
    random_groups(p.index, N, G);
    problem_input(&p, "hidden", N * D, ROWS);
    problem_input(&p, "bias", G * D, ADDS);
    for (int64_t g = 0; g < G; ++g)
        for (int64_t i = p.index[g] * D; i < p.index[g + 1] * D; ++i) { /* away from the kink of the differences */
            double *x = &p.in[0].x[i], bias = p.in[1].x[g * D + i % D];
            if (fabs(*x + bias) < 0.01) p.in[0].r[i] = (real)(*x = (float)(0.5 - bias));
        }
    const int64_t *order = random_permutation(N); /* rows arrive in the order of their experts, not of the batch */
    for (int64_t n = 0; n < N; ++n) p.index[G + 1 + n] = 3 * order[n] + 1000;
    check_problem(&p);
}

/* A diverged model must not be hidden by the rectifier. */
static void relu_nan(const struct op_case *c) {
    const double values[3] = {NAN, -1, 2}, none[3] = {0};
    real *hidden = reals(values, 3), *bias = reals(none, 3);
    struct groups groups = {.count = 1, .begin = TAKE(int64_t, 2)};
    random_groups((int64_t *)groups.begin, 1, 1);
    groups.begin_here = groups.begin;
    RUN(grouped_relu_forward, hidden, bias, NULL, some_dropout(c->p), &groups, 3);
    assert_true(isnan(hidden[0]) && hidden[1] == 0 && hidden[2] == 2);
}

static void tanh_reference(double *out, const struct problem *p) {
    for (int64_t i = 0; i < p->outputs; ++i) out[i] = tanh(p->in[0].x[i]);
}

static void tanh_forward(real *out, const struct problem *p) { RUN(tanh_forward, out, p->in[0].r, p->outputs); }

static void tanh_backward(const struct problem *p) { RUN(tanh_backward, p->in[0].g, p->dout, p->out, p->outputs); }

static void bend(const struct op_case *c) {
    struct problem p = {.c = c,
                        .reference = tanh_reference,
                        .forward = tanh_forward,
                        .backward = tanh_backward,
                        .outputs = c->size[0],
                        .flags = ROWS};
    problem_input(&p, "in", p.outputs, ROWS);
    check_problem(&p);
    const double beyond[] = {NAN, 1000, -1000};
    real *x = reals(beyond, 3);
    RUN(tanh_forward, x, x, 3);
    assert_true(isnan(x[0]) && x[1] == 1 && x[2] == -1);
}

static void adam(const struct op_case *c) {
    int64_t n = c->size[0];
    const double factor_of_all = 0.25, lr = 0.01, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
    double *x = random_doubles(n), *m = TAKE(double, n), *v = TAKE(double, n);
    real *parameter = reals(x, n), *m_real = TAKE(real, n), *v_real = TAKE(real, n);
    double *scale = TAKE(double, 1);
    *scale = factor_of_all;
    RUN(fill, m_real, 0, n);
    RUN(fill, v_real, 0, n);
    for (int64_t i = 0; i < n; ++i) m[i] = v[i] = 0;
    for (int t = 1; t <= 3; ++t) {
        double *gradient = random_doubles(n);
        if (n > 1) gradient[1] = 0; /* a weight that nothing reaches stays */
        for (int64_t i = 0; i < n; ++i) {
            double g = factor_of_all * gradient[i];
            m[i] = beta1 * m[i] + (1 - beta1) * g;
            v[i] = beta2 * v[i] + (1 - beta2) * g * g;
            x[i] -= lr * (m[i] / (1 - pow(beta1, t))) / (sqrt(v[i] / (1 - pow(beta2, t))) + epsilon);
        }
        RUN(adam, parameter, m_real, v_real, reals(gradient, n), scale, lr, beta1, beta2, epsilon, 1 - pow(beta1, t),
            1 - pow(beta2, t), n);
    }
    KEEP_ROWS(parameter, n);
    expect_close("m", m_real, m, n, TOLERANCE);
    expect_close("v", v_real, v, n, TOLERANCE);
    expect_close("parameter", parameter, x, n, TOLERANCE);
    /* a diverged step changes nothing */
    const double bad[] = {NAN, INFINITY, -INFINITY};
    real *kept[] = {parameter, m_real, v_real}, *before[3];
    for (int i = 0; i < 3; ++i) before[i] = memcpy(TAKE(real, n), kept[i], (size_t)n * sizeof *parameter);
    for (int i = 0; i < 3; ++i) {
        *scale = bad[i];
        RUN(adam, parameter, m_real, v_real, random_reals(n), scale, lr, beta1, beta2, epsilon, 0.5, 0.5, n);
        for (int j = 0; j < 3; ++j) assert_memory_equal(kept[j], before[j], (size_t)n * sizeof *parameter);
    }
}

static void clip_scale(const struct op_case *c) {
    (void)c;
    double *squares = TAKE(double, 3), *norm = TAKE(double, 1), *scale = TAKE(double, 1);
    const double finite[][6] = {{9, 12, 4, 1, 5, 1 / (5 + 1e-6)}, {9, 16, 0, 10, 5, 1}, {0, 0, 0, 0.25, 0, 1}};
    for (int i = 0; i < COUNT(finite); ++i) {
        memcpy(squares, finite[i], 3 * sizeof *squares);
        RUN(clip_scale, scale, norm, squares, finite[i][3]);
        assert_true(fabs(*norm - finite[i][4]) < 1e-14 && fabs(*scale - finite[i][5]) < 1e-14);
    }
    const double bad[][3] = {{NAN, 1, 1},      {1, NAN, 1},      {1, 1, NAN},
                             {INFINITY, 1, 1}, {1, INFINITY, 1}, {1, 1, INFINITY}};
    for (int i = 0; i < COUNT(bad); ++i) {
        memcpy(squares, bad[i], sizeof bad[i]);
        RUN(clip_scale, scale, norm, squares, 0.25);
        assert_true(!isfinite(*norm) && !isfinite(*scale));
    }
}

static const struct op_case cases[] = {
    {"fill_copy_add", fill_copy_add, .size = {0}},
    {"fill_copy_add", fill_copy_add, .size = {1}},
    {"fill_copy_add", fill_copy_add, .size = {17}},
    {"fill_copy_add", fill_copy_add, .size = {20001}, .large = true},
    {"rows_apart", rows_apart, .size = {0, 3}},
    {"rows_apart", rows_apart, .size = {1, 1}},
    {"rows_apart", rows_apart, .size = {17, 65}},
    {"rows_apart", rows_apart, .size = {65, 300}},
    {"counting", counting, .size = {0, 2, 5}},
    {"counting", counting, .size = {1, 1, 1}},
    {"counting", counting, .size = {65, 3, 17}, .flag = true},
    {"counting", counting, .size = {1000, 2, 300}, .flag = true},
    {"sums", sums, .size = {0}},
    {"sums", sums, .size = {1}},
    {"sums", sums, .size = {4096}},
    {"sums", sums, .size = {4097}},
    {"sums", sums, .size = {100003}, .large = true},
    {"sums", sums, .size = {4200000}, .large = true}, /* more blocks than are summed at once */
    {"all_finite", all_finite, .size = {0}},
    {"all_finite", all_finite, .size = {1}},
    {"all_finite", all_finite, .size = {17}},
    {"all_finite", all_finite, .size = {4100}},
    {"dropout", dropout, .size = {0, 17}, .p = 0.5},
    {"dropout", dropout, .size = {1, 1}, .p = 0.5},
    {"dropout", dropout, .size = {3, 3}},
    {"dropout", dropout, .size = {17, 65}, .p = 0.1},
    {"dropout", dropout, .size = {65, 64}, .p = 0.9},
    {"dropout", dropout, .size = {65, 300}, .p = 0.3},
    {"relu", relu, .size = {0, 17, 1}, .p = 0.5},
    {"relu", relu, .size = {0, 17, 3}},
    {"relu", relu, .size = {1, 1, 1}},
    {"relu", relu, .size = {3, 3, 1}},
    {"relu", relu, .size = {3, 17, 5}, .p = 0.5},
    {"relu", relu, .size = {65, 65, 4}},
    {"relu", relu, .size = {65, 300, 6}, .p = 0.2},
    {"tanh", bend, .size = {0}},
    {"tanh", bend, .size = {1}},
    {"tanh", bend, .size = {257}},
    {"tanh", bend, .size = {20000}, .large = true},
    {"relu_nan", relu_nan, .size = {1, 3}},
    {"clip_scale", clip_scale, .size = {2}},
    {"adam", adam, .size = {0}},
    {"adam", adam, .size = {1}},
    {"adam", adam, .size = {17}},
    {"adam", adam, .size = {300}},
    {"adam", adam, .size = {20001}, .large = true},
};

int main(void) { return RUN_CASES("elementwise", cases, ELEMENTWISE_OPS); }
