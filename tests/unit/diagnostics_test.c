/* The mathematics of the diagnostics: cases worked out by hand, and naive sums over all pairs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "train/collapse.h"

static void close_to(double found, double expected) {
    if (!(fabs(found - expected) <= 1e-9 * (1 + fabs(expected))))
        fail_msg("expected %.15g, found %.15g", expected, found);
}

/* ---- By hand ---- */

static void ranks_by_hand(void **state) {
    (void)state;
    const double cross[] = {1, 0, 0, -1, 0, 0, 0, 1, 0, 0, -1, 0}; /* two axes of equal variance, one of none */
    close_to(collapse_effective_rank(cross, 4, 3), 2);
    const double uneven[] = {3, 0, -3, 0, 0, 1, 0, -1}; /* variances 9 : 1 */
    close_to(collapse_effective_rank(uneven, 4, 2), exp(-0.9 * log(0.9) - 0.1 * log(0.1)));
    const double line[] = {1, 2, 3, 2, 4, 6, 5, 10, 15};
    close_to(collapse_effective_rank(line, 3, 3), 1);
    double corners[4 * 9] = {0}; /* fewer tokens than columns: a regular simplex */
    for (int i = 0; i < 4; ++i) corners[i * 9 + 2 * i] = 7;
    close_to(collapse_effective_rank(corners, 4, 9), 3);
    const double same[] = {0.1, 0.7, 0.1, 0.7, 0.1, 0.7}, one[] = {1, 2}, broken[] = {1, NAN, 3, 4};
    assert_true(isnan(collapse_effective_rank(same, 3, 2)));
    assert_true(isnan(collapse_effective_rank(one, 1, 2)));
    assert_true(isnan(collapse_effective_rank(broken, 2, 2)));
}

static void labels_by_hand(void **state) {
    (void)state;
    const real line[] = {0, 2, 10, 12}; /* means 1, 11 and 6: within 4 . 1, between 4 . 25 */
    const int64_t two[] = {0, 0, 2, 2}, all[] = {1, 1, 1, 1}, each[] = {0, 1, 2, 3};
    struct collapse c = collapse_of(line, two, 4, 1, 3);
    close_to(c.variance_ratio, 0.04);
    close_to(c.effective_rank, 1);
    close_to(c.rank_within, 1);
    c = collapse_of(line, all, 4, 1, 2);
    assert_true(isnan(c.variance_ratio) && isnan(c.cosine_between));
    c = collapse_of(line, each, 4, 1, 4);
    assert_true(isnan(c.rank_within) && isnan(c.cosine_within));
    close_to(c.variance_ratio, 0);

    const real plane[] = {2, 0, 5, 0, 0, 3, 1, 1, 0, 0}; /* lengths do not count; nothing has no direction */
    const int64_t labels[] = {0, 0, 1, 1, 1};
    c = collapse_of(plane, labels, 5, 2, 2);
    close_to(c.cosine_within, (1 + sqrt(0.5) + 0 + 0) / 4);
    close_to(c.cosine_between, 2 * (0 + sqrt(0.5) + 0) / 6);
}

static void counts_by_hand(void **state) {
    (void)state;
    const double counts[] = {6, 0, 3, 3}, nobody[] = {0, 0};
    close_to(collapse_perplexity(counts, 4), exp(1.5 * log(2)));
    close_to(collapse_dead(counts, 4), 1);
    close_to(collapse_most(counts, 4), 2);
    close_to(collapse_variation(counts, 4), sqrt((9 + 9 + 0 + 0) / 4.0) / 3);
    assert_true(isnan(collapse_perplexity(nobody, 2)) && isnan(collapse_most(nobody, 2)));
    assert_true(isnan(collapse_variation(nobody, 2)));

    const int64_t a[] = {0, 1, 2, 3, 0, 1, 2, 3}, b[] = {1, 0, 3, 2, 1, 0, 3, 2}, c[] = {0, 0, 0, 0, 1, 1, 1, 1};
    close_to(collapse_shared_bits(a, 4, b, 5, 8), 2); /* one tells the other */
    close_to(collapse_shared_bits(a, 4, c, 2, 8), 0); /* nothing of it */
    const int64_t half[] = {0, 0, 1, 1, 0, 0, 1, 1};
    close_to(collapse_shared_bits(a, 4, half, 2, 8), 1);
    close_to(collapse_changed(a, b, 8), 1);
    close_to(collapse_changed(a, c, 8), 0.75);
    close_to(collapse_changed(a, a, 8), 0);
}

/* ---- Naively ---- */

/* Cyclic Jacobi: eigenvalues of a symmetric matrix end up on its diagonal. */
static void diagonalise(double *m, int n) {
    for (int sweep = 0; sweep < 30; ++sweep)
        for (int p = 0; p < n; ++p)
            for (int q = p + 1; q < n; ++q) {
                double angle = 0.5 * atan2(2 * m[p * n + q], m[p * n + p] - m[q * n + q]), c = cos(angle),
                       s = sin(angle);
                for (int i = 0; i < n; ++i) {
                    double a = m[i * n + p], b = m[i * n + q];
                    m[i * n + p] = c * a + s * b;
                    m[i * n + q] = c * b - s * a;
                }
                for (int i = 0; i < n; ++i) {
                    double a = m[p * n + i], b = m[q * n + i];
                    m[p * n + i] = c * a + s * b;
                    m[q * n + i] = c * b - s * a;
                }
            }
}

/* Of the tokens with this label (-1: all). Covariance is the mean of (x - y)(x - y)^T / 2 over all pairs. */
static double naive_rank(const real *x, const int64_t *labels, int64_t label, int64_t N, int d) {
    double *m = calloc((size_t)(d * d), sizeof *m), sum = 0, entropy = 0;
    for (int64_t i = 0; i < N; ++i)
        for (int64_t j = 0; j < N; ++j)
            for (int a = 0; a < d && (label < 0 || (labels[i] == label && labels[j] == label)); ++a)
                for (int b = 0; b < d; ++b)
                    m[a * d + b] +=
                        ((double)x[i * d + a] - (double)x[j * d + a]) * ((double)x[i * d + b] - (double)x[j * d + b]);
    diagonalise(m, d);
    for (int i = 0; i < d; ++i) sum += m[i * d + i];
    for (int i = 0; i < d; ++i) {
        double p = m[i * d + i] / sum;
        if (p > 1e-15) entropy -= p * log(p);
    }
    free(m);
    return exp(entropy);
}

static double product(const real *a, const real *b, int64_t d) {
    double sum = 0;
    for (int64_t i = 0; i < d; ++i) sum += (double)a[i] * (double)b[i];
    return sum;
}

static struct collapse naive(const real *x, const int64_t *labels, int64_t N, int d, int64_t L) {
    double cosine[2] = {0}, pairs[2] = {0}, squares = 0, within = 0, ranks = 0, tokens = 0;
    for (int64_t i = 0; i < N; ++i)
        for (int64_t j = 0; j < N; ++j) {
            const real *a = x + i * d, *b = x + j * d;
            int64_t same = labels[i] == labels[j], count = 0;
            double apart = product(a, a, d) + product(b, b, d) - 2 * product(a, b, d);
            for (int64_t k = 0; k < N; ++k) count += labels[k] == labels[i];
            squares += apart / (2 * (double)N);
            if (same) within += apart / (2 * (double)count);
            if (i == j) continue;
            cosine[same] += product(a, b, d) / sqrt(product(a, a, d) * product(b, b, d));
            pairs[same]++;
        }
    for (int64_t l = 0; l < L; ++l) {
        int64_t count = 0;
        for (int64_t k = 0; k < N; ++k) count += labels[k] == l;
        if (count < 2) continue;
        ranks += (double)count * naive_rank(x, labels, l, N, d);
        tokens += (double)count;
    }
    return (struct collapse){naive_rank(x, labels, -1, N, d), ranks / tokens, cosine[1] / pairs[1],
                             cosine[0] / pairs[0], within / (squares - within)};
}

static void against_pairs(void **state) {
    (void)state;
    const struct {
        int64_t N, L;
        int d;
    } shapes[] = {{90, 5, 7}, {12, 4, 20}, {40, 1, 6}, {60, 30, 3}};
    for (uint32_t s = 0; s < sizeof shapes / sizeof *shapes; ++s) {
        int64_t N = shapes[s].N, L = shapes[s].L, *labels = calloc((size_t)N, sizeof *labels);
        int d = shapes[s].d;
        real *x = calloc((size_t)(N * d), sizeof *x);
        for (int64_t i = 0; i < N; ++i) {
            uint32_t words[4];
            rng_words(words, rng_place(s, 0, RNG_SAMPLE, 0, 0), (uint32_t)i, 1000);
            labels[i] = (int64_t)(words[0] % (uint32_t)L);
            for (int j = 0; j < d; ++j) { /* labels lie apart, columns differ in width */
                rng_words(words, rng_place(s, 0, RNG_SAMPLE, 0, 0), (uint32_t)i, (uint32_t)j);
                x[i * d + j] = (real)((rng_uniform(words[0]) - 0.3) * (j + 1) + (double)(labels[i] * (j % 3)));
            }
        }
        struct collapse found = collapse_of(x, labels, N, d, L), expected = naive(x, labels, N, d, L);
        close_to(found.effective_rank, expected.effective_rank);
        close_to(found.rank_within, expected.rank_within);
        close_to(found.cosine_within, expected.cosine_within);
        if (L > 1) {
            close_to(found.cosine_between, expected.cosine_between);
            close_to(found.variance_ratio, expected.variance_ratio);
        }
        free(labels);
        free(x);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(ranks_by_hand), cmocka_unit_test(labels_by_hand),
                                       cmocka_unit_test(counts_by_hand), cmocka_unit_test(against_pairs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
