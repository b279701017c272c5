/* Choosing experts, and rows in and out of their order. Sizes: N, then E (and K), or D, K. */
#include <string.h>

#include "tests/ops/check.h"

/* flag: scores of few values, so that nearly all are ties. */
static void top_k(const struct op_case *c) {
    int64_t N = c->size[0], E = c->size[1], K = c->size[2];
    real *scores = random_reals(N * E);
    int32_t *experts = TAKE(int32_t, N * K);
    for (int64_t i = 0; i < N * E && c->flag; ++i) scores[i] = (real)random_below(3);
    RUN(top_k, experts, scores, N, E, K);
    KEEP_ROWS(experts, N * K);
    for (int64_t n = 0; n < N; ++n) /* place of e: how many are better, or as good with a lower index */
        for (int64_t e = 0; e < E; ++e) {
            int64_t place = 0;
            for (int64_t i = 0; i < E; ++i)
                place += scores[n * E + i] > scores[n * E + e] || (scores[n * E + i] == scores[n * E + e] && i < e);
            if (place < K) assert_int_equal(experts[n * K + place], e);
        }
}

/* size[2]: one slot of so many is dropped (0: none) */
static void sort_by_expert(const struct op_case *c) {
    int64_t N = c->size[0], E = c->size[1], drops = c->size[2], next = 0, dropped = 0;
    int64_t *order, *place = TAKE(int64_t, N), *counts = TAKE(int64_t, E);
    int32_t *experts = random_ids(N, E);
    for (int64_t i = 0; i < N && c->flag; ++i) experts[i] = (int32_t)(E - 1); /* all to one, the others empty */
    for (int64_t i = 0; i < N && drops; ++i)
        if (random_below(drops) == 0) {
            experts[i] = -1;
            ++dropped;
        }
    order = TAKE(int64_t, N - dropped); /* not longer than what is sent: its end is guarded */
    RUN(sort_by_expert, order, place, counts, experts, &scratch, N, E);
    KEEP_ROWS(order, N - dropped);
    for (int64_t e = 0; e < E; ++e) {
        int64_t count = 0;
        for (int64_t i = 0; i < N; ++i) {
            if (experts[i] != e) continue;
            ++count;
            assert_int_equal(order[next], i);
            assert_int_equal(place[i], next++);
        }
        assert_int_equal(counts[e], count);
    }
    for (int64_t i = 0; i < N; ++i) assert_true(experts[i] >= 0 || place[i] == -1);
}

/* The last of the places are dropped slots' instead; returns how many are left. */
static int64_t drop_places(int64_t *place, int64_t slots, int64_t drops) {
    int64_t sent = slots - slots / drops;
    for (int64_t i = 0; i < slots; ++i)
        if (place[i] >= sent) place[i] = -1;
    return sent;
}

/* One in its place of every row, 0 elsewhere. */
static void hash_scores(const struct op_case *c) {
    int64_t N = c->size[0], E = c->size[1];
    const uint64_t salt = 0x9E3779B97F4A7C15u * 3;
    int32_t *ids = random_ids(N, 256);
    real *scores = TAKE(real, N * E);
    RUN(hash_scores, scores, ids, salt, N, E);
    KEEP_ROWS(scores, N * E);
    for (int64_t n = 0; n < N; ++n) {
        uint64_t x = ((uint64_t)ids[n] ^ salt) + 0x9E3779B97F4A7C15u; /* SplitMix64, written out */
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
        x = (x ^ x >> 27) * 0x94D049BB133111EBu;
        x ^= x >> 31;
        for (int64_t e = 0; e < E; ++e) assert_true(scores[n * E + e] == (e == (int64_t)(x % (uint64_t)E)));
    }
}

/* Against a count of the slots of each expert, in order: lower ranks have `before` of them, and each takes `room` in
 * all. flag: some slots were nobody's already. */
static void drop_beyond(const struct op_case *c) {
    int64_t N = c->size[0], E = c->size[1], room = c->size[2], begin = 0;
    int64_t *order = TAKE(int64_t, N), *place = TAKE(int64_t, N), *counts = TAKE(int64_t, E), *shift = TAKE(int64_t, E);
    int32_t *experts = random_ids(N, E), *before = random_ids(E, 4), *expected = TAKE(int32_t, N);
    int64_t *taken = TAKE(int64_t, E);
    for (int64_t i = 0; i < N && c->flag; i += 3) experts[i] = -1;
    RUN(sort_by_expert, order, place, counts, experts, &scratch, N, E);
    for (int64_t e = 0; e < E; ++e) {
        shift[e] = before[e] - begin;
        begin += counts[e];
        taken[e] = before[e];
    }
    for (int64_t i = 0; i < N; ++i) expected[i] = experts[i] < 0 ? -1 : taken[experts[i]]++ < room ? experts[i] : -1;
    RUN(drop_beyond, experts, place, shift, room, N);
    KEEP_ROWS(experts, N);
    assert_memory_equal(experts, expected, (size_t)N * sizeof *experts);
}

static void row_numbers(const struct op_case *c) {
    int64_t N = c->size[0], divisor = c->size[1], first = c->size[2];
    int64_t *index = random_permutation(N), *out = TAKE(int64_t, N);
    RUN(row_numbers, out, index, divisor, first, N);
    for (int64_t n = 0; n < N; ++n) assert_int_equal(out[n], first + index[n] / divisor);
    RUN(row_numbers, out, NULL, 1, first, N);
    for (int64_t n = 0; n < N; ++n) assert_int_equal(out[n], first + n);
}

/* Into places that some slots have, in any order; size[3]: one of so many has none (1: all, 0: none). */
static void scatter_rows(const struct op_case *c) {
    int64_t N = c->size[0], D = c->size[1], K = c->size[2], placed = N;
    real *in = random_reals((N + K - 1) / K * D), *out;
    int64_t *place = random_permutation(N);
    if (c->size[3]) placed = drop_places(place, N, c->size[3]);
    out = TAKE(real, placed * D);
    RUN(scatter_rows, out, in, place, K, N, D);
    KEEP_ROWS(out, placed * D);
    for (int64_t i = 0; i < N; ++i)
        if (place[i] >= 0) assert_memory_equal(out + place[i] * D, in + i / K * D, (size_t)D * sizeof *out);
}

static void gather_rows(const struct op_case *c) {
    int64_t N = c->size[0], D = c->size[1], divisor = c->size[2], rows = 11;
    real *in = random_reals(rows * D), *out = TAKE(real, N * D);
    int64_t *index = TAKE(int64_t, N);
    for (int64_t n = 0; n < N; ++n) index[n] = random_below(rows * divisor);
    RUN(gather_rows, out, in, index, divisor, N, D);
    KEEP_ROWS(out, N * D);
    for (int64_t n = 0; n < N; ++n)
        assert_memory_equal(out + n * D, in + index[n] / divisor * D, (size_t)D * sizeof *out);
}

static void combine_reference(double *out, const struct problem *p) {
    int64_t N = p->c->size[0], D = p->c->size[1], K = p->c->size[2];
    for (int64_t n = 0; n < N; ++n)
        for (int64_t i = 0; i < D; ++i) {
            out[n * D + i] = 0;
            for (int64_t j = 0; j < K; ++j) {
                if (p->index[n * K + j] < 0) continue;
                out[n * D + i] += p->in[1].x[n * K + j] * p->in[0].x[p->index[n * K + j] * D + i];
            }
        }
}

static void combine_forward(real *out, const struct problem *p) {
    const int64_t *s = p->c->size;
    RUN(combine_forward, out, false, p->in[0].r, p->index, p->in[1].r, s[0], s[2], s[1]);
}

static void combine_backward(const struct problem *p) {
    const int64_t *s = p->c->size;
    RUN(combine_backward, p->in[0].g, p->in[1].g, p->dout, p->in[0].r, p->index, p->in[1].r, s[0], s[2], s[1]);
}

/* size[3]: one slot of so many is dropped (1: all, 0: none) */
static void combine(const struct op_case *c) {
    int64_t N = c->size[0], D = c->size[1], K = c->size[2], sent = N * K;
    struct problem p = {
        .c = c,
        .reference = combine_reference,
        .forward = combine_forward,
        .backward = combine_backward,
        .outputs = N * D,
        .flags = ROWS,
        .index = random_permutation(N * K),
    };
    if (c->size[3]) sent = drop_places(p.index, N * K, c->size[3]);
    problem_input(&p, "rows", sent * D, ROWS);
    problem_input(&p, "weights", N * K, ROWS);
    check_problem(&p);
    for (int64_t i = 0; i < N * K; ++i) assert_true(p.index[i] >= 0 || p.in[1].g[i] == 0);
    /* added to what is there */
    double *expected = random_doubles(N * D), *sums = TAKE(double, N *D);
    real *out = reals(expected, N * D);
    RUN(combine_forward, out, true, p.in[0].r, p.index, p.in[1].r, N, K, D);
    combine_reference(sums, &p);
    for (int64_t i = 0; i < N * D; ++i) expected[i] += sums[i];
    expect_close("combine, adding", out, expected, N * D, TOLERANCE);
    /* no weights: all 1 */
    for (int64_t i = 0; i < N * K; ++i) p.in[1].x[i] = 1;
    RUN(combine_forward, out, false, p.in[0].r, p.index, NULL, N, K, D);
    combine_reference(expected, &p);
    expect_close("combine without weights", out, expected, N * D, TOLERANCE);
}

static const struct op_case cases[] = {
    {"top_k", top_k, .size = {0, 5, 2}},
    {"top_k", top_k, .size = {1, 1, 1}},
    {"top_k", top_k, .size = {17, 3, 3}},
    {"top_k", top_k, .size = {17, 3, 3}, .flag = true},
    {"top_k", top_k, .size = {65, 17, 1}, .flag = true},
    {"top_k", top_k, .size = {300, 65, 4}},
    {"top_k", top_k, .size = {300, 65, 4}, .flag = true},
    {"sort_by_expert", sort_by_expert, .size = {0, 5}},
    {"sort_by_expert", sort_by_expert, .size = {1, 1}},
    {"sort_by_expert", sort_by_expert, .size = {3, 17}},
    {"sort_by_expert", sort_by_expert, .size = {65, 4}, .flag = true},
    {"sort_by_expert", sort_by_expert, .size = {1000, 17}},
    {"sort_by_expert", sort_by_expert, .size = {1, 3, 1}},
    {"sort_by_expert", sort_by_expert, .size = {65, 4, 1}},
    {"sort_by_expert", sort_by_expert, .size = {65, 4, 2}, .flag = true},
    {"sort_by_expert", sort_by_expert, .size = {1000, 17, 3}},
    {"hash_scores", hash_scores, .size = {0, 3}},
    {"hash_scores", hash_scores, .size = {1, 1}},
    {"hash_scores", hash_scores, .size = {300, 17}},
    {"drop_beyond", drop_beyond, .size = {0, 3, 2}},
    {"drop_beyond", drop_beyond, .size = {17, 3, 0}},
    {"drop_beyond", drop_beyond, .size = {65, 4, 10}},
    {"drop_beyond", drop_beyond, .size = {1000, 17, 30}, .flag = true},
    {"row_numbers", row_numbers, .size = {0, 2, 5}},
    {"row_numbers", row_numbers, .size = {1, 1, 0}},
    {"row_numbers", row_numbers, .size = {1000, 3, 3000000000}},
    {"scatter_rows", scatter_rows, .size = {0, 3, 2}},
    {"scatter_rows", scatter_rows, .size = {1, 1, 1}},
    {"scatter_rows", scatter_rows, .size = {17, 3, 2, 1}},
    {"scatter_rows", scatter_rows, .size = {65, 64, 2, 3}},
    {"scatter_rows", scatter_rows, .size = {300, 65, 3}},
    {"gather_rows", gather_rows, .size = {0, 3, 1}},
    {"gather_rows", gather_rows, .size = {1, 1, 1}},
    {"gather_rows", gather_rows, .size = {17, 3, 2}},
    {"gather_rows", gather_rows, .size = {300, 65, 3}},
    {"combine", combine, .size = {0, 3, 2}},
    {"combine", combine, .size = {1, 1, 1}},
    {"combine", combine, .size = {3, 3, 2}},
    {"combine", combine, .size = {65, 17, 1}},
    {"combine", combine, .size = {65, 300, 3}},
    {"combine", combine, .size = {1, 3, 1, 1}},
    {"combine", combine, .size = {17, 3, 2, 1}},
    {"combine", combine, .size = {17, 3, 2, 2}},
    {"combine", combine, .size = {65, 300, 3, 3}},
};

int main(void) { return RUN_CASES("route", cases, ROUTE_OPS); }
