/* Operations on one element at a time, sums, dropout, and Adam. Sizes: n, or N, D. */
#include <math.h>
#include <string.h>

#include "tests/ops/check.h"

static void fill_copy_add(const struct op_case *c) {
    int64_t n = c->size[0];
    double *a = random_doubles(n), *b = random_doubles(n), *expected = TAKE(double, n);
    real *a_real = reals(a, n), *b_real = reals(b, n), *out = TAKE(real, n);
    size_t bytes = (size_t)n * sizeof *out;
    OP(fill)(out, (real)-2.5, n);
    for (int64_t i = 0; i < n; ++i) assert_true(out[i] == (real)-2.5);
    OP(copy)(out, a_real, n);
    assert_memory_equal(out, a_real, bytes);
    OP(add)(out, a_real, b_real, n);
    for (int64_t i = 0; i < n; ++i) assert_true(out[i] == a_real[i] + b_real[i]);
    real *onto_a = reals(a, n), *onto_b = reals(b, n);
    OP(add)(onto_a, onto_a, b_real, n);
    OP(add)(onto_b, a_real, onto_b, n);
    assert_memory_equal(onto_a, out, bytes);
    assert_memory_equal(onto_b, out, bytes);
    OP(add_scaled)(b_real, a_real, -0.3, n);
    for (int64_t i = 0; i < n; ++i) expected[i] = b[i] - 0.3 * a[i];
    expect_close("add_scaled", b_real, expected, n, TOLERANCE);
    OP(add_scaled)(b_real, b_real, 0.5, n);
    for (int64_t i = 0; i < n; ++i) expected[i] *= 1.5;
    expect_close("add_scaled of itself", b_real, expected, n, TOLERANCE);
    KEEP_ROWS(out, n);
    KEEP_ROWS(b_real, n);
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
    double got[2] = {OP(sum)(in, n), OP(sum_squares)(in, n)};
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
    OP(dropout)(out, NULL, in_real, place, row_first, N, D);
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
    OP(dropout)(out, residual_real, in_real, place, row_first, N, D);
    expect_close("dropout onto a residual", out, expected, N * D, TOLERANCE);
    real *onto_in = reals(in, N * D);
    OP(dropout)(onto_in, residual_real, onto_in, place, row_first, N, D);
    assert_memory_equal(onto_in, out, (size_t)(N * D) * sizeof *out);
    OP(dropout)(residual_real, residual_real, in_real, place, row_first, N, D);
    assert_memory_equal(residual_real, out, (size_t)(N * D) * sizeof *out);
}

static void relu_reference(double *out, const struct problem *p) {
    int64_t N = p->c->size[0], D = p->c->size[1];
    for (int64_t n = 0; n < N; ++n)
        for (int64_t i = 0; i < D; ++i)
            out[n * D + i] = fmax(p->in[0].x[n * D + i] + p->in[1].x[i], 0) *
                             (p->index ? dropout_factor(&p->dropout, p->index[n], i) : 1);
}

static void relu_forward(real *out, const struct problem *p) {
    int64_t N = p->c->size[0], D = p->c->size[1];
    memcpy(out, p->in[0].r, (size_t)(N * D) * sizeof *out);
    OP(relu_forward)(out, p->in[1].r, p->index, p->dropout, N, D);
}

static void relu_backward(const struct problem *p) {
    int64_t N = p->c->size[0], D = p->c->size[1];
    memcpy(p->in[0].g, p->dout, (size_t)(N * D) * sizeof *p->dout);
    OP(relu_backward)(p->in[0].g, p->in[1].g, p->out, p->dropout, &scratch, N, D);
}

static void relu(const struct op_case *c) {
    int64_t N = c->size[0], D = c->size[1];
    struct problem p = {
        .c = c,
        .reference = relu_reference,
        .forward = relu_forward,
        .backward = relu_backward,
        .outputs = N * D,
        .flags = ROWS,
        .dropout = some_dropout(c->p),
    };
    problem_input(&p, "hidden", N * D, ROWS);
    problem_input(&p, "bias", D, ADDS);
    for (int64_t i = 0; i < N * D; ++i) { /* away from the kink, which differences would step over */
        double *x = &p.in[0].x[i], bias = p.in[1].x[i % D];
        if (fabs(*x + bias) < 0.01) p.in[0].r[i] = (real)(*x = (float)(0.5 - bias));
    }
    if (c->p > 0) { /* rows arrive in the order of their experts, not of the batch */
        p.index = random_permutation(N);
        for (int64_t n = 0; n < N; ++n) p.index[n] = 3 * p.index[n] + 1000;
    }
    check_problem(&p);
}

/* A diverged model must not be hidden by the rectifier. */
static void relu_nan(const struct op_case *c) {
    real hidden[3] = {(real)NAN, -1, 2}, bias[3] = {0, 0, 0};
    OP(relu_forward)(hidden, bias, NULL, some_dropout(c->p), 1, 3);
    assert_true(isnan(hidden[0]) && hidden[1] == 0 && hidden[2] == 2);
}

static void adam(const struct op_case *c) {
    int64_t n = c->size[0];
    const double scale = 0.25, lr = 0.01, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
    double *x = random_doubles(n), *m = TAKE(double, n), *v = TAKE(double, n);
    real *parameter = reals(x, n), *m_real = TAKE(real, n), *v_real = TAKE(real, n);
    OP(fill)(m_real, 0, n);
    OP(fill)(v_real, 0, n);
    for (int64_t i = 0; i < n; ++i) m[i] = v[i] = 0;
    for (int t = 1; t <= 3; ++t) {
        double *gradient = random_doubles(n);
        if (n > 1) gradient[1] = 0; /* a weight that nothing reaches stays */
        for (int64_t i = 0; i < n; ++i) {
            double g = scale * gradient[i];
            m[i] = beta1 * m[i] + (1 - beta1) * g;
            v[i] = beta2 * v[i] + (1 - beta2) * g * g;
            x[i] -= lr * (m[i] / (1 - pow(beta1, t))) / (sqrt(v[i] / (1 - pow(beta2, t))) + epsilon);
        }
        OP(adam)
        (parameter, m_real, v_real, reals(gradient, n), scale, lr, beta1, beta2, epsilon, 1 - pow(beta1, t),
         1 - pow(beta2, t), n);
    }
    KEEP_ROWS(parameter, n);
    expect_close("m", m_real, m, n, TOLERANCE);
    expect_close("v", v_real, v, n, TOLERANCE);
    expect_close("parameter", parameter, x, n, TOLERANCE);
}

static const struct op_case cases[] = {
    {"fill_copy_add", fill_copy_add, .size = {0}},
    {"fill_copy_add", fill_copy_add, .size = {1}},
    {"fill_copy_add", fill_copy_add, .size = {17}},
    {"fill_copy_add", fill_copy_add, .size = {20001}},
    {"sums", sums, .size = {0}},
    {"sums", sums, .size = {1}},
    {"sums", sums, .size = {4096}},
    {"sums", sums, .size = {4097}},
    {"sums", sums, .size = {100003}},
    {"sums", sums, .size = {4200000}}, /* more blocks than are summed at once */
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
    {"relu", relu, .size = {0, 17}, .p = 0.5},
    {"relu", relu, .size = {1, 1}},
    {"relu", relu, .size = {3, 3}},
    {"relu", relu, .size = {3, 17}, .p = 0.5},
    {"relu", relu, .size = {65, 65}},
    {"relu", relu, .size = {65, 300}, .p = 0.2},
    {"relu_nan", relu_nan, .size = {1, 3}},
    {"adam", adam, .size = {0}},
    {"adam", adam, .size = {1}},
    {"adam", adam, .size = {17}},
    {"adam", adam, .size = {20001}},
};

int main(void) { return RUN_CASES("elementwise", cases, ELEMENTWISE_OPS); }
