/* Cross-entropy, and the softmaxes of routing and mixing. Sizes: N, then V, E (and K) or D. */
#include <math.h>
#include <string.h>

#include "tests/ops/check.h"

/* out [n] = softmax(x / tau) */
static void softmax(double *out, const double *x, double tau, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += exp(x[i] / tau);
    for (int64_t i = 0; i < n; ++i) out[i] = exp(x[i] / tau) / sum;
}

static const double scale = 0.37;

/* flag: some targets are elsewhere. */
static void cross_entropy_reference(double *out, const struct problem *p) {
    int64_t N = p->c->size[0], V = p->c->size[1];
    for (int64_t n = 0; n < N; ++n) {
        const double *x = p->in[0].x + n * V;
        double sum = 0;
        for (int64_t i = 0; i < V; ++i) sum += exp(x[i]);
        out[n] = log(sum) - (p->ids[n] < 0 ? 0 : x[p->ids[n]]);
    }
}

static void cross_entropy_forward(real *out, const struct problem *p) {
    RUN(cross_entropy_forward, out, p->saved, p->in[0].r, p->ids, p->c->size[0], p->c->size[1]);
}

static void cross_entropy_backward(const struct problem *p) {
    RUN(cross_entropy_backward, p->in[0].g, p->in[0].r, p->saved, p->ids, scale, p->c->size[0], p->c->size[1]);
}

static void cross_entropy(const struct op_case *c) {
    int64_t N = c->size[0], V = c->size[1];
    struct problem p = {
        .c = c,
        .reference = cross_entropy_reference,
        .forward = cross_entropy_forward,
        .backward = cross_entropy_backward,
        .outputs = N,
        .flags = ROWS,
        .saved = TAKE(real, N),
        .ids = random_ids(N, V),
        .dout = TAKE(real, N),
    };
    for (int64_t n = 0; n < N; ++n) p.dout[n] = (real)scale;
    for (int64_t n = 0; n < N && c->flag; n += 2) p.ids[n] = -1;
    problem_input(&p, "logits", N * V, ROWS);
    check_problem(&p);
    p.forward(p.out, &p);
    double *lse = TAKE(double, N);
    cross_entropy_reference(lse, &p);
    for (int64_t n = 0; n < N; ++n) lse[n] += p.ids[n] < 0 ? 0 : p.in[0].x[n * V + p.ids[n]];
    expect_close("lse", p.saved, lse, N, TOLERANCE);
    real *in_place = reals(p.in[0].x, N * V);
    RUN(cross_entropy_backward, in_place, in_place, p.saved, p.ids, scale, N, V);
    assert_memory_equal(in_place, p.in[0].g, (size_t)(N * V) * sizeof *in_place);
}

/* Sizes: N, P. Parts of rows as they may be: large, small, and every third of none. */
static void cross_entropy_join(const struct op_case *c) {
    int64_t N = c->size[0], P = c->size[1];
    real *parts = TAKE(real, P * 2 * N), *losses = TAKE(real, N), *lse = TAKE(real, N);
    double *expected_losses = TAKE(double, N), *expected_lse = TAKE(double, N);
    for (int64_t n = 0; n < N; ++n) {
        double sum = 0, picked = 0;
        for (int64_t p = 0; p < P; ++p) {
            real *loss = parts + 2 * p * N + n, *own = loss + N;
            *own = *loss = (real)-1e30;
            if (p % 3 == 2) continue;
            *own = (real)(20 * random_value());
            *loss = (real)(*own - (p == n % P ? (double)*own - 1.5 : 0));
            sum += exp(*own);
            picked += (double)*own - *loss;
        }
        expected_lse[n] = log(sum);
        expected_losses[n] = expected_lse[n] - picked;
    }
    RUN(cross_entropy_join, losses, lse, parts, P, N);
    expect_close("lse", lse, expected_lse, N, TOLERANCE);
    expect_close("losses", losses, expected_losses, N, TOLERANCE);
    KEEP_ROWS(lse, N);
    KEEP_ROWS(losses, N);
}

/* Logits beyond the range of exp: only their differences count. */
static void cross_entropy_large(const struct op_case *c) {
    const double values[2 * 3] = {1000, 999, -1000, -1000, -1000, -1000}, expected[2] = {log(exp(1) + 1), log(3)};
    real *logits = reals(values, 2 * 3), *losses = TAKE(real, 2), *lse = TAKE(real, 2), *dlogits = TAKE(real, 2 * 3);
    int32_t *targets = TAKE(int32_t, 2);
    targets[0] = 1;
    targets[1] = 2;
    RUN(cross_entropy_forward, losses, lse, logits, targets, c->size[0], c->size[1]);
    RUN(cross_entropy_backward, dlogits, logits, lse, targets, 1, c->size[0], c->size[1]);
    double tolerance = sizeof(real) == 4 ? 1e-4 : 1e-12; /* a float near 1000 has steps of 6e-5 */
    for (int n = 0; n < 2; ++n) assert_true(fabs(losses[n] - expected[n]) < tolerance);
    assert_true(fabs(dlogits[0] - exp(1) / (exp(1) + 1)) < tolerance && dlogits[2] == 0);
    assert_true(fabs(dlogits[5] + 2.0 / 3) < tolerance);
}

/* flag: over all experts, else over the chosen ones. */
static void route_weights_reference(double *out, const struct problem *p) {
    int64_t N = p->c->size[0], E = p->c->size[1], K = p->c->size[2];
    for (int64_t n = 0; n < N; ++n) {
        const double *s = p->in[0].x + n * E;
        double sum = 0;
        for (int64_t e = 0; e < E && p->c->flag; ++e) sum += exp(s[e]);
        for (int64_t j = 0; j < K && !p->c->flag; ++j) sum += exp(s[p->ids[n * K + j]]);
        for (int64_t j = 0; j < K; ++j) out[n * K + j] = exp(s[p->ids[n * K + j]]) / sum;
    }
}

static void route_weights_forward(real *out, const struct problem *p) {
    const int64_t *s = p->c->size;
    RUN(route_weights_forward, out, p->in[0].r, p->ids, p->c->flag, s[0], s[1], s[2]);
}

static void route_weights_backward(const struct problem *p) {
    const int64_t *s = p->c->size;
    RUN(route_weights_backward, p->in[0].g, p->dout, p->out, p->in[0].r, p->ids, p->c->flag, s[0], s[1], s[2]);
}

/* Any experts, not the best: routes may be replayed from another run. */
static void route_weights(const struct op_case *c) {
    int64_t N = c->size[0], E = c->size[1], K = c->size[2];
    struct problem p = {
        .c = c,
        .reference = route_weights_reference,
        .forward = route_weights_forward,
        .backward = route_weights_backward,
        .outputs = N * K,
        .flags = ROWS,
        .ids = TAKE(int32_t, N * K),
    };
    for (int64_t i = 0; i < N * K; ++i)
        p.ids[i] = (int32_t)(i % K ? (p.ids[i - 1] + 1) % E : random_below(E)); /* K different ones */
    problem_input(&p, "scores", N * E, ROWS);
    check_problem(&p);
}

static const double tau = 0.7;

/* out: one sum per expert, so that the coefficients of the balance loss are its dout. */
static void balance_reference(double *out, const struct problem *p) {
    int64_t N = p->c->size[0], E = p->c->size[1];
    double share[128];
    for (int64_t e = 0; e < E; ++e) out[e] = 0;
    for (int64_t n = 0; n < N; ++n) {
        softmax(share, p->in[0].x + n * E, tau, E);
        for (int64_t e = 0; e < E; ++e) out[e] += share[e];
    }
}

static void balance_forward(real *out, const struct problem *p) {
    double *sums = TAKE(double, p->c->size[1]);
    RUN(balance_forward, sums, p->in[0].r, tau, p->c->size[0], p->c->size[1]);
    for (int64_t e = 0; e < p->c->size[1]; ++e) out[e] = (real)sums[e];
}

static void balance_backward(const struct problem *p) {
    double *coefficient = TAKE(double, p->c->size[1]);
    for (int64_t e = 0; e < p->c->size[1]; ++e) coefficient[e] = p->dout[e] / scale;
    RUN(balance_backward, p->in[0].g, p->in[0].r, coefficient, scale, tau, p->c->size[0], p->c->size[1]);
}

static void balance(const struct op_case *c) {
    struct problem p = {
        .c = c,
        .reference = balance_reference,
        .forward = balance_forward,
        .backward = balance_backward,
        .outputs = c->size[1],
    };
    problem_input(&p, "scores", c->size[0] * c->size[1], ADDS | ROWS);
    check_problem(&p);
}

/* flag: no slots, as on a rank without tokens. Coefficients, and the loss that they give. */
static void balance_loss(const struct op_case *c) {
    int64_t E = c->size[0];
    double *sums = random_doubles(E), *counts = TAKE(double, E), *coefficient = TAKE(double, E);
    double *loss = TAKE(double, 1), slots = c->flag ? 0 : (double)(3 * E), expected = 0;
    for (int64_t e = 0; e < E; ++e) counts[e] = c->flag ? 0 : (double)random_below(7);
    RUN(balance_loss, loss, coefficient, sums, counts, slots, 41, E);
    KEEP_ROWS(loss, 1);
    KEEP_ROWS(coefficient, E);
    for (int64_t e = 0; e < E; ++e) {
        double f = c->flag ? 0 : (double)E * counts[e] / slots;
        assert_true(fabs(coefficient[e] - f) <= 1e-12 * f);
        expected += f * sums[e] / 41;
    }
    assert_true(fabs(*loss - expected) <= 1e-12 * (double)E);
}

enum { LOGITS, A, B };

static void mix_reference(double *out, const struct problem *p) {
    int64_t N = p->c->size[0], D = p->c->size[1];
    for (int64_t n = 0; n < N; ++n) {
        double gates[2];
        softmax(gates, p->in[LOGITS].x + 2 * n, 1, 2);
        for (int64_t i = n * D; i < (n + 1) * D; ++i) out[i] = gates[0] * p->in[A].x[i] + gates[1] * p->in[B].x[i];
    }
}

static void mix_forward(real *out, const struct problem *p) {
    RUN(mix_forward, out, p->saved, p->in[LOGITS].r, p->in[A].r, p->in[B].r, p->c->size[0], p->c->size[1]);
}

static void mix_backward(const struct problem *p) {
    RUN(mix_backward, p->in[A].g, p->in[B].g, p->in[LOGITS].g, p->dout, p->saved, p->in[A].r, p->in[B].r, p->c->size[0],
        p->c->size[1]);
}

static void mix(const struct op_case *c) {
    int64_t N = c->size[0], D = c->size[1];
    struct problem p = {
        .c = c,
        .reference = mix_reference,
        .forward = mix_forward,
        .backward = mix_backward,
        .outputs = N * D,
        .flags = ROWS,
        .saved = TAKE(real, 2 * N),
    };
    problem_input(&p, "logits", 2 * N, ROWS);
    problem_input(&p, "a", N * D, ROWS);
    problem_input(&p, "b", N * D, ROWS);
    check_problem(&p);
    p.forward(p.out, &p);
    double *gates = TAKE(double, 2 * N);
    for (int64_t n = 0; n < N; ++n) softmax(gates + 2 * n, p.in[LOGITS].x + 2 * n, 1, 2);
    expect_close("gates", p.saved, gates, 2 * N, TOLERANCE);
}

/* Logits far apart: the gates are 0 and 1, never NaN. Wide enough for the vector path. */
static void mix_large(const struct op_case *c) {
    enum { N = 40, D = 32 };
    (void)c;
    real *logits = TAKE(real, 2 * N), *gates = TAKE(real, 2 * N), *out = TAKE(real, N * D);
    real *a = TAKE(real, N * D), *b = TAKE(real, N * D);
    for (int i = 0; i < N * D; ++i) a[i] = 3, b[i] = 5;
    for (int n = 0; n < N; ++n) {
        logits[2 * n] = n % 2 ? 200 : -200;
        logits[2 * n + 1] = 0;
    }
    RUN(mix_forward, out, gates, logits, a, b, N, D);
    for (int i = 0; i < N * D; ++i) assert_true(fabs((double)out[i] - (i / D % 2 ? 3 : 5)) < 1e-6);
}

static const struct op_case cases[] = {
    {"mix_large", mix_large, .size = {40, 1}},
    {"cross_entropy", cross_entropy, .size = {0, 17}},
    {"cross_entropy", cross_entropy, .size = {1, 1}},
    {"cross_entropy", cross_entropy, .size = {3, 3}},
    {"cross_entropy", cross_entropy, .size = {17, 65}},
    {"cross_entropy", cross_entropy, .size = {65, 300}},
    {"cross_entropy", cross_entropy, .size = {1, 1}, .flag = true},
    {"cross_entropy", cross_entropy, .size = {17, 65}, .flag = true},
    {"cross_entropy", cross_entropy, .size = {3, 2500}, .flag = true},
    {"cross_entropy_join", cross_entropy_join, .size = {0, 2}},
    {"cross_entropy_join", cross_entropy_join, .size = {1, 1}},
    {"cross_entropy_join", cross_entropy_join, .size = {17, 3}},
    {"cross_entropy_join", cross_entropy_join, .size = {300, 17}},
    {"cross_entropy_large", cross_entropy_large, .size = {2, 3}},
    {"route_weights", route_weights, .size = {0, 5, 2}, .flag = true},
    {"route_weights", route_weights, .size = {1, 1, 1}},
    {"route_weights", route_weights, .size = {1, 1, 1}, .flag = true},
    {"route_weights", route_weights, .size = {3, 5, 1}, .flag = true},
    {"route_weights", route_weights, .size = {3, 5, 2}},
    {"route_weights", route_weights, .size = {17, 17, 17}},
    {"route_weights", route_weights, .size = {300, 65, 3}, .flag = true},
    {"route_weights", route_weights, .size = {300, 65, 3}},
    {"balance", balance, .size = {0, 5}},
    {"balance", balance, .size = {1, 1}},
    {"balance", balance, .size = {3, 3}},
    {"balance", balance, .size = {17, 16}},
    {"balance", balance, .size = {300, 65}},
    {"balance_loss", balance_loss, .size = {1}},
    {"balance_loss", balance_loss, .size = {17}},
    {"balance_loss", balance_loss, .size = {300}},
    {"balance_loss", balance_loss, .size = {17}, .flag = true},
    {"mix", mix, .size = {0, 17}},
    {"mix", mix, .size = {1, 1}},
    {"mix", mix, .size = {3, 3}},
    {"mix", mix, .size = {17, 65}},
    {"mix", mix, .size = {65, 300}},
};

int main(void) { return RUN_CASES("softmax", cases, SOFTMAX_OPS); }
