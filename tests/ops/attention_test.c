/* Attention against its formula, key by key with explicit distances; factors of products go through factor(). Sizes: B,
 * T, S, H, D; flag: relative. */
#include <math.h>

#include "tests/ops/check.h"

enum { Q, K, V, R, BIAS_W, BIAS_R };

static struct attention_shape shape_of(const struct problem *p) {
    const int64_t *s = p->c->size;
    return (struct attention_shape){s[0], s[1], s[2], s[3], s[4], .row_first = 5, .dropout = p->dropout};
}

/* scores [T, S] of one head, -infinity beyond the causal edge. */
static void reference_scores(double *scores, const struct problem *p, const struct attention_shape *s, int64_t b,
                             int64_t h) {
    for (int64_t t = 0; t < s->T; ++t)
        for (int64_t j = 0; j < s->S; ++j) {
            int64_t distance = s->S - s->T + t - j;
            const double *q = p->in[Q].x + ((b * s->T + t) * s->H + h) * s->D;
            const double *k = p->in[K].x + ((b * s->S + j) * s->H + h) * s->D;
            double score = 0;
            for (int64_t i = 0; i < s->D && distance >= 0; ++i) {
                score += factor(q[i] + (p->c->flag ? p->in[BIAS_W].x[h * s->D + i] : 0)) * factor(k[i]);
                if (!p->c->flag) continue;
                const double *r = p->in[R].x + ((s->S - 1 - distance) * s->H + h) * s->D;
                score += factor(q[i] + p->in[BIAS_R].x[h * s->D + i]) * factor(r[i]);
            }
            scores[t * s->S + j] = distance >= 0 ? score / sqrt((double)s->D) : -INFINITY;
        }
}

/* lse [B, H, T] too where it is not NULL. */
static void reference_with_lse(double *out, double *lse, const struct problem *p) {
    struct attention_shape s = shape_of(p);
    static double scores[256 * 256];
    assert_true(s.T * s.S <= COUNT(scores));
    for (int64_t b = 0; b < s.B; ++b)
        for (int64_t h = 0; h < s.H; ++h) {
            reference_scores(scores, p, &s, b, h);
            struct dropout dropout = s.dropout;
            dropout.place.site += 65536 * (uint32_t)h;
            for (int64_t t = 0; t < s.T; ++t) {
                const double *score = scores + t * s.S;
                double *y = out + ((b * s.T + t) * s.H + h) * s.D, sum = 0;
                for (int64_t j = 0; j < s.S; ++j) sum += exp(score[j]);
                if (lse) lse[(b * s.H + h) * s.T + t] = log(sum);
                for (int64_t i = 0; i < s.D; ++i) y[i] = 0;
                for (int64_t j = 0; j < s.S - s.T + t + 1; ++j) {
                    double probability = exp(score[j]) / sum * dropout_factor(&dropout, (s.row_first + b) * s.T + t, j);
                    for (int64_t i = 0; i < s.D; ++i)
                        y[i] += factor(probability) * factor(p->in[V].x[((b * s.S + j) * s.H + h) * s.D + i]);
                }
            }
        }
}

static void attention_reference(double *out, const struct problem *p) { reference_with_lse(out, NULL, p); }

/* One query and one key: their part in every gradient. at: place of (t, h) in q; key: of (j, h) in k; far: of the
 * distance's row in r. probability is after dropout. */
static void add_to_gradient(double *g, const struct problem *p, int wanted, int64_t D, int64_t head, int64_t at,
                            int64_t key, int64_t far, double probability, double dscore) {
    for (int64_t i = 0; i < D; ++i) {
        double q = p->in[Q].x[at + i], k = factor(dscore) * factor(p->in[K].x[key + i]);
        double r = p->c->flag ? factor(dscore) * factor(p->in[R].x[far + i]) : 0;
        double q_w = factor(dscore) * factor(q + (p->c->flag ? p->in[BIAS_W].x[head + i] : 0));
        double q_r = p->c->flag ? factor(dscore) * factor(q + p->in[BIAS_R].x[head + i]) : 0;
        if (wanted == Q) g[at + i] += k + r;
        if (wanted == K) g[key + i] += q_w;
        if (wanted == V) g[key + i] += factor(probability) * factor(p->dout[at + i]);
        if (wanted == R) g[far + i] += q_r;
        if (wanted == BIAS_W) g[head + i] += k;
        if (wanted == BIAS_R) g[head + i] += r;
    }
}

static void attention_gradient(double *g, const struct problem *p, int wanted) {
    struct attention_shape s = shape_of(p);
    double *scores = TAKE(double, s.T *s.S);
    int64_t row = s.H * s.D;
    for (int64_t i = 0; i < p->in[wanted].n; ++i) g[i] = 0;
    for (int64_t b = 0; b < s.B; ++b)
        for (int64_t h = 0; h < s.H; ++h) {
            struct dropout dropout = s.dropout;
            dropout.place.site += 65536 * (uint32_t)h;
            reference_scores(scores, p, &s, b, h);
            for (int64_t t = 0; t < s.T; ++t) {
                const double *score = scores + t * s.S;
                int64_t at = (b * s.T + t) * row + h * s.D, seen = s.S - s.T + t + 1;
                double sum = 0, delta = 0;
                for (int64_t j = 0; j < seen; ++j) sum += exp(score[j]);
                for (int64_t i = 0; i < s.D; ++i) delta += (double)p->dout[at + i] * p->out[at + i];
                for (int64_t j = 0; j < seen; ++j) {
                    int64_t key = (b * s.S + j) * row + h * s.D, far = (s.S - seen + j) * row + h * s.D;
                    double kept = dropout_factor(&dropout, (s.row_first + b) * s.T + t, j), dp = 0;
                    for (int64_t i = 0; i < s.D; ++i) dp += factor(p->dout[at + i]) * factor(p->in[V].x[key + i]);
                    double dscore = exp(score[j]) / sum * (kept * dp - delta) / sqrt((double)s.D);
                    add_to_gradient(g, p, wanted, s.D, h * s.D, at, key, far, kept * exp(score[j]) / sum, dscore);
                }
            }
        }
}

static void attention_forward(real *out, const struct problem *p) {
    struct attention_shape s = shape_of(p);
    const struct tensor *in = p->in;
    RUN(attention_forward, out, p->saved, in[Q].r, in[K].r, in[V].r, in[R].r, in[BIAS_W].r, in[BIAS_R].r, &scratch, &s);
}

static void attention_backward(const struct problem *p) {
    struct attention_shape s = shape_of(p);
    const struct tensor *in = p->in;
    RUN(attention_backward, in[Q].g, in[K].g, in[V].g, in[R].g, in[BIAS_W].g, in[BIAS_R].g, p->dout, p->out, p->saved,
        in[Q].r, in[K].r, in[V].r, in[R].r, in[BIAS_W].r, in[BIAS_R].r, &scratch, &s);
}

static void attention(const struct op_case *c) {
    int64_t B = c->size[0], T = c->size[1], S = c->size[2], row = c->size[3] * c->size[4], rows = B * c->size[3] * T;
    struct problem p = {
        .c = c,
        .reference = attention_reference,
        .forward = attention_forward,
        .backward = attention_backward,
        .gradient = attention_gradient,
        .tolerance = test_precision() == PRECISION_BF16 ? 1e-2 : 0, /* where one rounds up and the other down */
        .outputs = B * T * row,
        .flags = ROWS,
        .saved = TAKE(real, rows),
        .dropout = some_dropout(c->p),
    };
    problem_input(&p, "q", B * T * row, ROWS);
    problem_input(&p, "k", B * S * row, ROWS);
    problem_input(&p, "v", B * S * row, ROWS);
    if (c->flag) { /* without them: NULL, as absolute attention passes */
        problem_input(&p, "r", S * row, 0);
        problem_input(&p, "bias_w", row, ADDS);
        problem_input(&p, "bias_r", row, ADDS);
    }
    check_problem(&p);
    double *out = TAKE(double, p.outputs), *lse = TAKE(double, rows);
    reference_with_lse(out, lse, &p);
    p.forward(p.out, &p);
    expect_close("lse", p.saved, lse, rows, p.tolerance > 0 ? p.tolerance : TOLERANCE);
}

/* Scores far beyond the range of exp: one key takes all. */
static void attention_large_scores(const struct op_case *c) {
    struct problem p = {.c = c, .outputs = 3, .saved = TAKE(real, 3)};
    problem_input(&p, "q", 3, 0);
    problem_input(&p, "k", 3, 0);
    problem_input(&p, "v", 3, 0);
    for (int i = 0; i < 3; ++i) {
        p.in[Q].r[i] = 100;
        p.in[K].r[i] = (real)(100 * (i + 1));
    }
    real *out = TAKE(real, 3);
    attention_forward(out, &p);
    for (int i = 0; i < 3; ++i) assert_true(out[i] == (real)factor(p.in[V].x[i]));
}

static const struct op_case cases[] = {
    {"attention", attention, .size = {0, 3, 5, 2, 4}, .flag = true},
    {"attention", attention, .size = {2, 0, 5, 2, 4}, .flag = true},
    {"attention", attention, .size = {0, 3, 5, 2, 4}},
    {"attention", attention, .size = {1, 1, 1, 1, 1}, .flag = true},
    {"attention", attention, .size = {2, 3, 3, 2, 3}, .flag = true},
    {"attention", attention, .size = {2, 3, 3, 2, 3}},
    {"attention", attention, .size = {1, 1, 17, 1, 3}, .flag = true},
    {"attention", attention, .size = {2, 3, 17, 1, 8}, .p = 0.3, .flag = true},
    {"attention", attention, .size = {2, 17, 17, 3, 5}, .p = 0.25, .flag = true},
    {"attention", attention, .size = {2, 17, 17, 3, 5}, .p = 0.25},
    {"attention", attention, .size = {1, 64, 64, 2, 16}, .flag = true},
    {"attention", attention, .size = {1, 65, 65, 2, 17}, .flag = true},
    {"attention", attention, .size = {1, 65, 65, 2, 17}, .p = 0.1},
    {"attention", attention, .size = {2, 65, 130, 2, 16}, .p = 0.3, .flag = true},
    {"attention", attention, .size = {3, 70, 71, 1, 8}, .flag = true}, /* fewer heads than threads */
    {"attention", attention, .size = {1, 129, 129, 1, 64}},
    {"attention", attention, .size = {1, 130, 200, 2, 17}, .p = 0.1, .flag = true, .large = true},
    {"attention_large_scores", attention_large_scores, .size = {1, 3, 3, 1, 1}},
};

int main(void) { return RUN_CASES("attention", cases, ATTENTION_OPS); }
