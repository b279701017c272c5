/* Rows of the embedding, and the sinusoids of positions. Sizes: N, D, and V or the first distance. */
#include <math.h>

#include "tests/ops/check.h"

static const double scale = 1.75;

static void embedding_reference(double *out, const struct problem *p) {
    int64_t N = p->c->size[0], D = p->c->size[1];
    for (int64_t n = 0; n < N; ++n)
        for (int64_t i = 0; i < D; ++i) out[n * D + i] = scale * p->in[0].x[p->ids[n] * D + i];
}

static void embedding_forward(real *out, const struct problem *p) {
    RUN(embedding_forward, out, p->in[0].r, p->ids, scale, p->c->size[0], p->c->size[1]);
}

static void embedding_backward(const struct problem *p) {
    RUN(embedding_backward, p->in[0].g, p->dout, p->ids, scale, &scratch, p->c->size[0], p->c->size[2], p->c->size[1]);
}

/* flag: one id alone */
static void embedding(const struct op_case *c) {
    int64_t N = c->size[0], D = c->size[1], V = c->size[2];
    struct problem p = {
        .c = c,
        .reference = embedding_reference,
        .forward = embedding_forward,
        .backward = embedding_backward,
        .outputs = N * D,
        .flags = ROWS,
        .ids = random_ids(N, V),
    };
    for (int64_t n = 0; n < N && c->flag; ++n) p.ids[n] = (int32_t)(V - 1);
    problem_input(&p, "weight", V * D, ADDS);
    check_problem(&p);
}

/* Distances upwards, downwards as attention wants them, and every other one. */
static void sinusoid(const struct op_case *c) {
    int64_t N = c->size[0], D = c->size[1];
    const int64_t places[][2] = {{c->size[2], 1}, {c->size[2] + N - 1, -1}, {c->size[2], 2}};
    struct dropout dropout = some_dropout(c->p);
    for (int j = 0; j < COUNT(places); ++j) {
        real *out = TAKE(real, N * D);
        double *expected = TAKE(double, N *D);
        RUN(sinusoid, out, places[j][0], places[j][1], dropout, N, D);
        for (int64_t n = 0; n < N; ++n)
            for (int64_t i = 0; i < D; ++i) {
                int64_t distance = places[j][0] + n * places[j][1], pair = i % (D / 2);
                double angle = (double)distance * pow(10000, -2 * (double)pair / (double)D);
                expected[n * D + i] = (i < D / 2 ? sin(angle) : cos(angle)) * dropout_factor(&dropout, distance, i);
            }
        KEEP_ROWS(out, N * D);
        expect_close("sinusoid", out, expected, N * D, TOLERANCE);
    }
}

static const struct op_case cases[] = {
    {"embedding", embedding, .size = {0, 3, 5}},
    {"embedding", embedding, .size = {1, 1, 1}},
    {"embedding", embedding, .size = {3, 3, 2}},
    {"embedding", embedding, .size = {65, 17, 11}},
    {"embedding", embedding, .size = {257, 65, 7}},
    {"embedding", embedding, .size = {300, 20, 50}, .flag = true},
    {"sinusoid", sinusoid, .size = {0, 4, 0}},
    {"sinusoid", sinusoid, .size = {1, 2, 0}},
    {"sinusoid", sinusoid, .size = {3, 4, 0}, .p = 0.5},
    {"sinusoid", sinusoid, .size = {65, 34, 17}},
    {"sinusoid", sinusoid, .size = {200, 66, 1000}, .p = 0.3},
};

int main(void) { return RUN_CASES("embedding", cases, EMBEDDING_OPS); }
