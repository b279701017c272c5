/* Attention against its formula, key by key with explicit distances; factors of products go through factor(). Sizes: B,
 * T, S, H, D, 1: with padding; flag: relative. */
#include <math.h>

#include "tests/ops/check.h"

enum { Q, K, V, R, BIAS_W, BIAS_R };

static struct attention_shape shape_of(const struct problem *p) {
    const int64_t *s = p->c->size;
    return (struct attention_shape){
        s[0], s[1], s[2], s[3], s[4], .first = p->ids, .row_first = 5, .dropout = p->dropout};
}

static int64_t first_key(const struct attention_shape *s, int64_t b) { return s->first ? s->first[b] : 0; }

/* No query of the padding sees any. */
static bool sees(const struct attention_shape *s, int64_t b, int64_t t, int64_t j) {
    return j >= first_key(s, b) && j <= s->S - s->T + t;
}

/* scores [T, S] of one head, -infinity beyond the causal edge and in padding. */
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
            scores[t * s->S + j] = sees(s, b, t, j) ? score / sqrt((double)s->D) : -INFINITY;
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
                if (lse) lse[(b * s.H + h) * s.T + t] = sum > 0 ? log(sum) : 0;
                for (int64_t i = 0; i < s.D; ++i) y[i] = 0;
                for (int64_t j = first_key(&s, b); j < s.S - s.T + t + 1; ++j) {
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
                for (int64_t j = 0; j < s.S; ++j) sum += exp(score[j]);
                for (int64_t i = 0; i < s.D; ++i) delta += (double)p->dout[at + i] * p->out[at + i];
                for (int64_t j = first_key(&s, b); j < seen; ++j) {
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

/* A row without, one that is all padding, one with a single key, others at random. */
static int32_t *some_padding(int64_t B, int64_t S) {
    int32_t *first = random_ids(B, S);
    const int32_t some[] = {0, (int32_t)S, (int32_t)S - 1};
    for (int64_t b = 0; b < B && b < COUNT(some); ++b) first[b] = some[b];
    return first;
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
    if (c->size[5]) p.ids = some_padding(B, S);
    check_problem(&p);
    double *out = TAKE(double, p.outputs), *lse = TAKE(double, rows);
    reference_with_lse(out, lse, &p);
    p.forward(p.out, &p);
    expect_close("lse", p.saved, lse, rows, p.tolerance > 0 ? p.tolerance : TOLERANCE);
}

/* rows [B, T, ...] of width w, the last n of batch row b. */
static real *end_of_row(real *rows, int64_t b, int64_t T, int64_t n, int64_t w) { return rows + ((b + 1) * T - n) * w; }

/* Each row with padding against the same row alone without: S is T. */
static void attention_alone(const struct op_case *c) {
    struct attention_shape s = {.B = c->size[0], .T = c->size[1], .S = c->size[1], .H = c->size[3], .D = c->size[4]};
    int64_t w = s.H * s.D, n = s.B * s.T * w;
    real *q = random_reals(n), *k = random_reals(n), *v = random_reals(n), *dout = random_reals(n);
    real *r = random_reals(s.T * w), *bias = random_reals(2 * w), *out[2], *lse[2], *g[2][6];
    for (int i = 0; i < 2; ++i) {
        out[i] = TAKE(real, n), lse[i] = TAKE(real, s.B * s.T * s.H);
        for (int j = 0; j < 6; ++j) g[i][j] = reals(random_doubles(n), n);
    }
    int32_t *first = some_padding(s.B, s.T);
    s.first = first;
    RUN(attention_forward, out[0], lse[0], q, k, v, r, bias, bias + w, &scratch, &s);
    RUN(attention_backward, g[0][Q], g[0][K], g[0][V], g[0][R], g[0][BIAS_W], g[0][BIAS_R], dout, out[0], lse[0], q, k,
        v, r, bias, bias + w, &scratch, &s);
    for (int64_t b = 0; b < s.B; ++b) {
        int64_t T = s.T - first[b], padding = first[b] * w;
        struct attention_shape alone = {.B = 1, .T = T, .S = T, .H = s.H, .D = s.D};
        real *far = r + padding;
#define END(rows) end_of_row(rows, b, s.T, T, w)
        RUN(attention_forward, out[1], lse[1], END(q), END(k), END(v), far, bias, bias + w, &scratch, &alone);
        RUN(attention_backward, g[1][Q], g[1][K], g[1][V], g[1][R], g[1][BIAS_W], g[1][BIAS_R], END(dout), out[1],
            lse[1], END(q), END(k), END(v), far, bias, bias + w, &scratch, &alone);
        double *expected = random_doubles(T * w);
        for (int i = -1; i <= V; ++i) {
            real *padded = i < 0 ? out[0] : g[0][i];
            const real *plain = i < 0 ? out[1] : g[1][i];
            for (int64_t j = 0; j < T * w; ++j) expected[j] = plain[j];
            expect_close("as alone", END(padded), expected, T * w, TOLERANCE);
            for (int64_t j = 0; j < padding; ++j) assert_true(padded[b * s.T * w + j] == 0);
        }
#undef END
    }
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
    {"attention", attention, .size = {4, 5, 5, 2, 3, 1}, .flag = true},
    {"attention", attention, .size = {4, 5, 7, 2, 3, 1}, .p = 0.3},
    {"attention", attention, .size = {5, 17, 17, 2, 5, 1}, .p = 0.25, .flag = true},
    {"attention", attention, .size = {4, 40, 40, 1, 4, 1}},
    {"attention", attention, .size = {4, 130, 131, 1, 4, 1}, .p = 0.1, .flag = true, .large = true},
    {"attention_alone", attention_alone, .size = {5, 9, 9, 2, 4}},
    {"attention_alone", attention_alone, .size = {5, 150, 150, 3, 16}, .large = true},
    {"attention_large_scores", attention_large_scores, .size = {1, 3, 3, 1, 1}},
};

int main(void) { return RUN_CASES("attention", cases, ATTENTION_OPS); }
