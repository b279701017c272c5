/* Nearest codes and the quantizer's errors. Sizes: N, M, D. */
#include <math.h>
#include <string.h>

#include "tests/ops/check.h"

static void nearest_code(const struct op_case *c) {
    int64_t N = c->size[0], M = c->size[1], D = c->size[2];
    double *z = random_doubles(N * D), *table = random_doubles(M * D), *expected = TAKE(double, N *M);
    real *distance = TAKE(real, N * M);
    int32_t *codes = TAKE(int32_t, N);
    OP(nearest_code)(codes, distance, reals(z, N * D), reals(table, M * D), N, M, D);
    KEEP_SUMS(codes, N);
    KEEP_SUMS(distance, N * M);
    for (int64_t n = 0; n < N; ++n)
        for (int64_t m = 0; m < M; ++m) {
            expected[n * M + m] = 0;
            for (int64_t i = 0; i < D; ++i)
                expected[n * M + m] += table[m * D + i] * (table[m * D + i] - 2 * z[n * D + i]);
        }
    expect_close("distance", distance, expected, N * M, TOLERANCE);
    for (int64_t n = 0; n < N; ++n)
        for (int64_t m = 0; m < M; ++m) {
            const real *d = distance + n * M;
            assert_true(m < codes[n] ? d[m] > d[codes[n]] : d[m] >= d[codes[n]]);
        }
}

/* Small integers: distances are exact, and a later copy of a code ties with the first. */
static void nearest_code_ties(const struct op_case *c) {
    int64_t N = c->size[0], M = c->size[1], D = c->size[2];
    real *z = TAKE(real, N * D), *table = TAKE(real, M * D), *distance = TAKE(real, N * M);
    int32_t *codes = TAKE(int32_t, N);
    for (int64_t i = 0; i < N * D; ++i) z[i] = (real)(random_below(5) - 2);
    for (int64_t i = 0; i < M * D; ++i) table[i] = i < M / 2 * D ? (real)(random_below(5) - 2) : table[i - M / 2 * D];
    OP(nearest_code)(codes, distance, z, table, N, M, D);
    for (int64_t n = 0; n < N; ++n) {
        int32_t best = 0;
        real least = 0;
        for (int32_t m = 0; m < M; ++m) {
            real d = 0;
            for (int64_t i = 0; i < D; ++i) d += table[m * D + i] * (table[m * D + i] - 2 * z[n * D + i]);
            if (m && d >= least) continue;
            best = m;
            least = d;
        }
        assert_int_equal(codes[n], best);
        assert_true(best < (M + 1) / 2 + 1);
    }
}

static void quantize(const struct op_case *c) {
    int64_t N = c->size[0], M = c->size[1], D = c->size[2];
    double *x = random_doubles(N * D), *table = random_doubles(M * D), *expected = TAKE(double, N *D);
    real *x_real = reals(x, N * D), *table_real = reals(table, M * D), *out = TAKE(real, N * D);
    int32_t *codes = random_ids(N, M);
    const double parts[][2] = {{1, 0}, {0.75, 0.25}, {0, 0.5}, {0, 1}};
    for (int j = 0; j < COUNT(parts); ++j) {
        OP(quantize)(out, x_real, table_real, codes, parts[j][0], parts[j][1], N, D);
        KEEP_ROWS(out, N * D);
        for (int64_t i = 0; i < N * D; ++i)
            expected[i] = parts[j][0] * x[i] + parts[j][1] * table[codes[i / D] * D + i % D];
        expect_close("quantize", out, expected, N * D, TOLERANCE);
    }
    for (int64_t n = 0; n < N; ++n) /* (0, 1) came last: the bits of the code, whatever x is */
        assert_memory_equal(out + n * D, table_real + codes[n] * D, (size_t)D * sizeof *out);
}

static const double scale = 0.6;

/* One output, scale / 2 of the squared error, so that commit = code_scale = scale times its dout. */
static void code_error_reference(double *out, const struct problem *p) {
    int64_t N = p->c->size[0], D = p->c->size[2];
    out[0] = 0;
    for (int64_t i = 0; i < N * D; ++i)
        out[0] += scale / 2 * pow(p->in[1].x[p->ids[i / D] * D + i % D] - p->in[0].x[i], 2);
}

static void code_error_forward(real *out, const struct problem *p) {
    out[0] = (real)(scale / 2 * OP(code_error)(p->in[0].r, p->in[1].r, p->ids, p->c->size[0], p->c->size[2]));
}

static void code_error_backward(const struct problem *p) {
    double s = scale * p->dout[0];
    OP(code_error_backward)
    (p->in[0].g, p->in[1].g, p->in[0].r, p->in[1].r, p->ids, s, s, p->c->size[0], p->c->size[2]);
}

static void code_error(const struct op_case *c) {
    int64_t N = c->size[0], M = c->size[1], D = c->size[2];
    struct problem p = {
        .c = c,
        .reference = code_error_reference,
        .forward = code_error_forward,
        .backward = code_error_backward,
        .outputs = 1,
        .flags = ROWS,
        .ids = random_ids(N, M),
    };
    problem_input(&p, "x", N * D, ADDS | ROWS);
    problem_input(&p, "table", M * D, ADDS);
    check_problem(&p);
    /* different scales, and no gradient of the table: the gradient of x stays what it is */
    double *dx = random_doubles(N * D), *dtable = random_doubles(M * D);
    real *dx_real = reals(dx, N * D), *dx_alone = reals(dx, N * D), *dtable_real = reals(dtable, M * D);
    OP(code_error_backward)(dx_real, dtable_real, p.in[0].r, p.in[1].r, p.ids, 0.25, 2, N, D);
    OP(code_error_backward)(dx_alone, NULL, p.in[0].r, p.in[1].r, p.ids, 0.25, 2, N, D);
    for (int64_t i = 0; i < N * D; ++i) {
        int64_t code = p.ids[i / D] * D + i % D;
        double error = p.in[0].x[i] - p.in[1].x[code];
        dx[i] += 0.25 * error;
        dtable[code] -= 2 * error;
    }
    expect_close("dx", dx_real, dx, N * D, TOLERANCE);
    expect_close("dtable", dtable_real, dtable, M * D, TOLERANCE);
    assert_memory_equal(dx_alone, dx_real, (size_t)(N * D) * sizeof *dx_real);
}

static const struct op_case cases[] = {
    {"nearest_code", nearest_code, .size = {0, 3, 5}},
    {"nearest_code", nearest_code, .size = {1, 1, 1}},
    {"nearest_code", nearest_code, .size = {3, 17, 1}},
    {"nearest_code", nearest_code, .size = {65, 17, 65}},
    {"nearest_code", nearest_code, .size = {300, 65, 64}},
    {"nearest_code_ties", nearest_code_ties, .size = {17, 5, 2}},
    {"nearest_code_ties", nearest_code_ties, .size = {300, 64, 3}},
    {"quantize", quantize, .size = {0, 3, 5}},
    {"quantize", quantize, .size = {1, 1, 1}},
    {"quantize", quantize, .size = {17, 3, 65}},
    {"quantize", quantize, .size = {65, 17, 300}},
    {"code_error", code_error, .size = {0, 3, 5}},
    {"code_error", code_error, .size = {1, 1, 1}},
    {"code_error", code_error, .size = {3, 5, 3}},
    {"code_error", code_error, .size = {17, 3, 65}},
    {"code_error", code_error, .size = {65, 17, 300}},
};

int main(void) { return RUN_CASES("quantize", cases, QUANTIZE_OPS); }
