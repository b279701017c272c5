/* Nearest codes and the quantizer's errors. Sizes: N, M, D. */
#include <math.h>
#include <string.h>

#include "tests/ops/check.h"

static void nearest_code(const struct op_case *c) {
    int64_t N = c->size[0], M = c->size[1], D = c->size[2];
    double *z = random_doubles(N * D), *table = random_doubles(M * D), *expected = TAKE(double, N *M);
    real *distance = TAKE(real, N * M), *z_real = reals(z, N * D), *table_real = reals(table, M * D);
    int32_t *codes = TAKE(int32_t, N), *alone = TAKE(int32_t, N);
    RUN(nearest_code, codes, distance, z_real, table_real, &scratch, N, M, D);
    RUN(nearest_code, alone, NULL, z_real, table_real, &scratch, N, M, D);
    KEEP_SUMS(alone, N);
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
            assert_true(expected[n * M + alone[n]] <= expected[n * M + m] + 10 * TOLERANCE * (double)D);
            assert_true(m < codes[n] ? d[m] > d[codes[n]] : d[m] >= d[codes[n]]);
        }
}

/* Small integers: distances are exact, and a later copy of a code ties with the first. */
static void nearest_code_ties(const struct op_case *c) {
    int64_t N = c->size[0], M = c->size[1], D = c->size[2];
    real *z = TAKE(real, N * D), *table = TAKE(real, M * D), *distance = TAKE(real, N * M);
    int32_t *codes = TAKE(int32_t, N), *alone = TAKE(int32_t, N);
    for (int64_t i = 0; i < N * D; ++i) z[i] = (real)(random_below(5) - 2);
    for (int64_t i = 0; i < M * D; ++i) table[i] = i < M / 2 * D ? (real)(random_below(5) - 2) : table[i - M / 2 * D];
    RUN(nearest_code, codes, distance, z, table, &scratch, N, M, D);
    RUN(nearest_code, alone, NULL, z, table, &scratch, N, M, D);
    assert_memory_equal(alone, codes, (size_t)N * sizeof *codes);
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
        RUN(quantize, out, x_real, table_real, codes, parts[j][0], parts[j][1], N, D);
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
    double *sum = TAKE(double, 1);
    RUN(code_error, sum, p->in[0].r, p->in[1].r, p->ids, p->c->size[0], p->c->size[2]);
    out[0] = (real)(scale / 2 * *sum);
}

static void code_error_backward(const struct problem *p) {
    double s = scale * p->dout[0];
    RUN(code_error_backward, p->in[0].g, p->in[1].g, p->in[0].r, p->in[1].r, p->ids, s, s, &scratch, p->c->size[0],
        p->c->size[1], p->c->size[2]);
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
    RUN(code_error_backward, dx_real, dtable_real, p.in[0].r, p.in[1].r, p.ids, 0.25, 2, &scratch, N, M, D);
    RUN(code_error_backward, dx_alone, NULL, p.in[0].r, p.in[1].r, p.ids, 0.25, 2, &scratch, N, M, D);
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

/* Added to what is there; flag: one code takes all. */
static void code_sums(const struct op_case *c) {
    int64_t N = c->size[0], M = c->size[1], D = c->size[2];
    double *counts = TAKE(double, M), *sums = random_doubles(M * D), *expected = TAKE(double, M *D);
    double *times = TAKE(double, M), *x = random_doubles(N * D);
    int32_t *codes = random_ids(N, M);
    for (int64_t m = 0; m < M; ++m) times[m] = counts[m] = (double)m;
    memcpy(expected, sums, (size_t)(M * D) * sizeof *sums);
    for (int64_t n = 0; n < N; ++n) {
        if (c->flag) codes[n] = (int32_t)(M - 1);
        times[codes[n]]++;
        for (int64_t i = 0; i < D; ++i) expected[codes[n] * D + i] += x[n * D + i];
    }
    RUN(code_sums, counts, sums, reals(x, N * D), codes, N, M, D);
    KEEP_ROWS(counts, M);
    KEEP_ROWS(sums, M * D);
    assert_memory_equal(counts, times, (size_t)M * sizeof *counts);
    for (int64_t i = 0; i < M * D; ++i) assert_true(fabs(sums[i] - expected[i]) <= 1e-12 * (double)(N + 1));
    for (int64_t n = 0; n < N; ++n) times[codes[n]]++;
    RUN(code_sums, counts, NULL, NULL, codes, N, M, D); /* counts alone */
    assert_memory_equal(counts, times, (size_t)M * sizeof *counts);
}

static const int64_t token_first = 70001;

/* value [N, M] of every row for every code, from the definition. */
static void anchor_values(double *value, const real *scores, const real *v, struct rng_place place, int64_t N,
                          int64_t M, int64_t D) {
    for (int64_t n = 0; n < N; ++n)
        for (int64_t m = 0; m < M; ++m) {
            double squares = 0, uniform = (philox_word(place, (uint32_t)(token_first + n), (uint32_t)m) + 0.5) / 0x1p32;
            for (int64_t i = 0; i < D; ++i) squares += (double)v[m * D + i] * v[m * D + i];
            value[n * M + m] = (squares - scores[n * M + m]) / 2 - log(-log(uniform));
        }
}

/* Rows in two calls, as micro-batches bring them; then all again, when nothing is above the best: poisoned tokens and
 * anchors show that it stays. Code 0 has a best that no row reaches. */
static void anchor_search(const struct op_case *c) {
    int64_t N = c->size[0], M = c->size[1], D = c->size[2], half = N / 3;
    struct rng_place place = some_dropout(0).place;
    real *scores = random_reals(N * M), *v = random_reals(M * D), *x = random_reals(N * D);
    double *best = TAKE(double, M), *anchor = TAKE(double, M *D), *value = TAKE(double, N *M);
    int64_t *token = TAKE(int64_t, M);
    for (int64_t m = 0; m < M; ++m) {
        best[m] = m ? -INFINITY : 1e6;
        token[m] = INT64_MAX;
        for (int64_t i = 0; i < D; ++i) anchor[m * D + i] = 0;
    }
    RUN(anchor_search, best, token, anchor, scores, v, x, place, token_first, half, M, D);
    RUN(anchor_search, best, token, anchor, scores + half * M, v, x + half * D, place, token_first + half, N - half, M,
        D);
    KEEP_ROWS(best, M);
    KEEP_ROWS(token, M);
    KEEP_ROWS(anchor, M * D);
    anchor_values(value, scores, v, place, N, M, D);
    for (int64_t m = 0; m < M; ++m) {
        int64_t row = 0;
        for (int64_t n = 1; n < N; ++n)
            if (value[n * M + m] > value[row * M + m]) row = n;
        bool found = m && N;
        assert_true(found ? fabs(best[m] - value[row * M + m]) < 1e-9 : best[m] == (m ? -INFINITY : 1e6));
        assert_true(token[m] == (found ? token_first + row : INT64_MAX));
        for (int64_t i = 0; i < D; ++i) assert_true(anchor[m * D + i] == (found ? (double)x[row * D + i] : 0));
    }
    if (!N) return;
    double *before = memcpy(TAKE(double, M), best, (size_t)M * sizeof *best);
    for (int64_t m = 0; m < M; ++m) {
        token[m] = -7;
        anchor[m * D] = 99;
    }
    RUN(anchor_search, best, token, anchor, scores, v, x, place, token_first, N, M, D);
    assert_memory_equal(best, before, (size_t)M * sizeof *best);
    for (int64_t m = 0; m < M; ++m) assert_true(token[m] == -7 && anchor[m * D] == 99);
}

static const struct op_case cases[] = {
    {"nearest_code", nearest_code, .size = {0, 3, 5}},
    {"nearest_code", nearest_code, .size = {1, 1, 1}},
    {"nearest_code", nearest_code, .size = {3, 17, 1}},
    {"nearest_code", nearest_code, .size = {65, 17, 65}},
    {"nearest_code", nearest_code, .size = {300, 65, 64}},
    {"nearest_code", nearest_code, .size = {9001, 130, 3}, .large = true}, /* more distances than are kept */
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
    {"code_sums", code_sums, .size = {0, 3, 5}},
    {"code_sums", code_sums, .size = {1, 1, 1}},
    {"code_sums", code_sums, .size = {300, 7, 17}},
    {"code_sums", code_sums, .size = {257, 65, 64}},
    {"code_sums", code_sums, .size = {300, 5, 70}, .flag = true},
    {"anchor_search", anchor_search, .size = {0, 3, 5}},
    {"anchor_search", anchor_search, .size = {1, 1, 1}},
    {"anchor_search", anchor_search, .size = {17, 5, 3}},
    {"anchor_search", anchor_search, .size = {300, 66, 17}},
};

int main(void) { return RUN_CASES("quantize", cases, QUANTIZE_OPS); }
