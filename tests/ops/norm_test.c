/* Layer norm and rows of norm one. Sizes: N, D. */
#include <math.h>

#include "tests/ops/check.h"

static void layer_norm_reference(double *out, const struct problem *p) {
    const double *x = p->in[0].x, *weight = p->in[1].x, *bias = p->in[2].x;
    int64_t N = p->c->size[0], D = p->c->size[1];
    for (int64_t n = 0; n < N; ++n) {
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < D; ++i) mean += x[n * D + i] / (double)D;
        for (int64_t i = 0; i < D; ++i) variance += pow(x[n * D + i] - mean, 2) / (double)D;
        for (int64_t i = 0; i < D; ++i)
            out[n * D + i] = weight[i] * (x[n * D + i] - mean) / sqrt(variance + 1e-5) + bias[i];
    }
}

static void layer_norm_forward(real *out, const struct problem *p) {
    RUN(layer_norm_forward, out, p->saved, p->in[0].r, p->in[1].r, p->in[2].r, p->c->size[0], p->c->size[1]);
}

static void layer_norm_backward(const struct problem *p) {
    RUN(layer_norm_backward, p->in[0].g, p->in[1].g, p->in[2].g, p->dout, p->in[0].r, p->saved, p->in[1].r, &scratch,
        p->c->size[0], p->c->size[1]);
}

static void layer_norm(const struct op_case *c) {
    int64_t N = c->size[0], D = c->size[1];
    struct problem p = {
        .c = c,
        .reference = layer_norm_reference,
        .forward = layer_norm_forward,
        .backward = layer_norm_backward,
        .outputs = N * D,
        .flags = ROWS,
        .saved = TAKE(real, 2 * N),
    };
    problem_input(&p, "in", N * D, ROWS);
    problem_input(&p, "weight", D, ADDS);
    problem_input(&p, "bias", D, ADDS);
    /* A width of 1 leaves a difference of equal products, one of them fused and not rounded, times rstd = 316. */
    if (D == 1) p.in[1].x[0] = p.in[1].r[0] = 1;
    check_problem(&p);
    p.forward(p.out, &p);
    double *stats = TAKE(double, 2 * N);
    for (int64_t n = 0; n < N; ++n) {
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < D; ++i) mean += p.in[0].x[n * D + i] / (double)D;
        for (int64_t i = 0; i < D; ++i) variance += pow(p.in[0].x[n * D + i] - mean, 2) / (double)D;
        stats[2 * n] = mean;
        stats[2 * n + 1] = 1 / sqrt(variance + 1e-5);
    }
    expect_close("stats", p.saved, stats, 2 * N, TOLERANCE);
}

static const double norm_floor = 0.05;

static void normalize_rows_reference(double *out, const struct problem *p) {
    int64_t N = p->c->size[0], D = p->c->size[1];
    for (int64_t n = 0; n < N; ++n) {
        double squares = 0;
        for (int64_t i = 0; i < D; ++i) squares += pow(p->in[0].x[n * D + i], 2);
        for (int64_t i = 0; i < D; ++i) out[n * D + i] = p->in[0].x[n * D + i] / fmax(sqrt(squares), norm_floor);
    }
}

static void normalize_rows_forward(real *out, const struct problem *p) {
    RUN(normalize_rows_forward, out, p->saved, p->in[0].r, norm_floor, p->c->size[0], p->c->size[1]);
}

static void normalize_rows_backward(const struct problem *p) {
    RUN(normalize_rows_backward, p->in[0].g, p->dout, p->out, p->saved, norm_floor, p->c->size[0], p->c->size[1]);
}

/* Row 1 is below the floor, row 2 is zero. */
static void normalize_rows(const struct op_case *c) {
    int64_t N = c->size[0], D = c->size[1];
    struct problem p = {
        .c = c,
        .reference = normalize_rows_reference,
        .forward = normalize_rows_forward,
        .backward = normalize_rows_backward,
        .outputs = N * D,
        .flags = ROWS,
        .saved = TAKE(real, N),
    };
    problem_input(&p, "in", N * D, ADDS | ROWS);
    for (int64_t n = 1; n < 3 && n < N; ++n)
        for (int64_t i = 0; i < D; ++i) {
            p.in[0].x[n * D + i] = n == 1 ? (float)(0.02 * p.in[0].x[n * D + i] / sqrt((double)D)) : 0;
            p.in[0].r[n * D + i] = (real)p.in[0].x[n * D + i];
        }
    check_problem(&p);
    p.forward(p.out, &p);
    double *norms = TAKE(double, N);
    for (int64_t n = 0; n < N; ++n) {
        norms[n] = 0;
        for (int64_t i = 0; i < D; ++i) norms[n] += pow(p.in[0].x[n * D + i], 2);
        norms[n] = sqrt(norms[n]);
    }
    expect_close("norms", p.saved, norms, N, TOLERANCE);
    p.forward(p.in[0].r, &p); /* in place */
    assert_memory_equal(p.in[0].r, p.out, (size_t)(N * D) * sizeof *p.out);
}

static const struct op_case cases[] = {
    {"layer_norm", layer_norm, .size = {0, 17}},          {"layer_norm", layer_norm, .size = {1, 1}},
    {"layer_norm", layer_norm, .size = {3, 3}},           {"layer_norm", layer_norm, .size = {1, 17}},
    {"layer_norm", layer_norm, .size = {17, 65}},         {"layer_norm", layer_norm, .size = {65, 17}},
    {"layer_norm", layer_norm, .size = {65, 300}},        {"normalize_rows", normalize_rows, .size = {0, 17}},
    {"normalize_rows", normalize_rows, .size = {1, 1}},   {"normalize_rows", normalize_rows, .size = {3, 3}},
    {"normalize_rows", normalize_rows, .size = {17, 65}}, {"normalize_rows", normalize_rows, .size = {65, 300}},
};

int main(void) { return RUN_CASES("norm", cases, NORM_OPS); }
