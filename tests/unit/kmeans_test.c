/* k-means of the `cluster` router against plain loops written from docs/method.md, section 6. */
#include "moe/kmeans.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "kernels/ops.h"

enum { MOST = 4096 };
static const struct rng_place place = {.seed = 5, .step = 7, .site = RNG_CLUSTER_START};

static double value(int64_t i) { return (double)(hash_splitmix64((uint64_t)i) >> 11) * 0x1p-53 - 0.5; }

static double distance(const double *a, const double *b, int64_t D) {
    double sum = 0;
    for (int64_t i = 0; i < D; ++i) sum += pow(a[i] - b[i], 2);
    return sum;
}

/* The nearest of C centroids, of equal ones the lowest. */
static int64_t nearest(const double *centroids, const double *x, int64_t C, int64_t D) {
    int64_t best = 0;
    for (int64_t c = 1; c < C; ++c)
        if (distance(x, centroids + c * D, D) < distance(x, centroids + best * D, D)) best = c;
    return best;
}

static double draw(int64_t c) {
    uint32_t words[4];
    rng_words(words, place, (uint32_t)c, 0);
    return (words[0] + 0.5) / 4294967296.0;
}

static int64_t start_sample(const double *centroids, const double *samples, int64_t N, int64_t c, int64_t D) {
    double sums[MOST], total = 0;
    if (c == 0) return (int64_t)floor(draw(0) * (double)N);
    for (int64_t j = 0; j < N; ++j) {
        total += distance(samples + j * D, centroids + nearest(centroids, samples + j * D, c, D) * D, D);
        sums[j] = total;
    }
    if (total == 0) return c % N;
    for (int64_t j = 0; j < N; ++j)
        if (sums[j] > draw(c) * total) return j;
    return N - 1;
}

static void reference(double *centroids, const double *samples, int64_t N, int64_t C, int64_t D) {
    for (int64_t c = 0; c < C; ++c)
        memcpy(centroids + c * D, samples + start_sample(centroids, samples, N, c, D) * D, (size_t)D * sizeof(double));
    for (int step = 0; step < 20; ++step) {
        int64_t of[MOST];
        double far[MOST], old[MOST];
        memcpy(old, centroids, (size_t)(C * D) * sizeof *old);
        for (int64_t j = 0; j < N; ++j) {
            of[j] = nearest(old, samples + j * D, C, D);
            far[j] = distance(samples + j * D, old + of[j] * D, D);
        }
        for (int64_t c = 0; c < C; ++c) {
            int64_t count = 0, farthest = 0;
            for (int64_t j = 0; j < N; ++j) count += of[j] == c;
            for (int64_t i = 0; i < D && count; ++i) {
                double sum = 0;
                for (int64_t j = 0; j < N; ++j) sum += of[j] == c ? samples[j * D + i] : 0;
                centroids[c * D + i] = sum / (double)count;
            }
            if (count) continue;
            for (int64_t j = 0; j < N; ++j)
                if (far[j] > far[farthest]) farthest = j;
            memcpy(centroids + c * D, samples + farthest * D, (size_t)D * sizeof(double));
            far[farthest] = -INFINITY; /* taken */
        }
    }
}

/* The same on 1 and on 2 threads, and as the loops have it. */
static void check(const double *samples, int64_t N, int64_t C, int64_t D, double *centroids) {
    double again[MOST], expected[MOST];
    assert_true(N <= MOST && C * D <= MOST);
    ops_init_cpu(1, PRECISION_FP32);
    kmeans(centroids, samples, N, C, D, place);
    ops_init_cpu(2, PRECISION_FP32);
    kmeans(again, samples, N, C, D, place);
    assert_memory_equal(again, centroids, (size_t)(C * D) * sizeof *again);
    reference(expected, samples, N, C, D);
    for (int64_t i = 0; i < C * D; ++i) assert_true(fabs(centroids[i] - expected[i]) <= 1e-12);
}

static void test_loops(void **state) {
    (void)state;
    const int64_t sizes[][3] = {{200, 9, 5}, {1000, 16, 3}, {50, 50, 2}, {7, 1, 4}, {1, 1, 1}};
    double samples[MOST], centroids[MOST];
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; ++s) {
        int64_t N = sizes[s][0], C = sizes[s][1], D = sizes[s][2];
        for (int64_t i = 0; i < N * D && i < MOST; ++i) samples[i] = value(i);
        check(samples, N, C, D, centroids);
    }
}

/* Far from one another: each blob gets a centroid, its mean. */
static void test_blobs(void **state) {
    (void)state;
    enum { C = 6, EACH = 40, D = 3 };
    double samples[C * EACH * D], centroids[C * D];
    for (int64_t j = 0; j < C * EACH; ++j)
        for (int64_t i = 0; i < D; ++i) samples[j * D + i] = value(j * D + i) + (double)(j % C == i ? 100 : j % C * 10);
    check(samples, C * EACH, C, D, centroids);
    for (int64_t blob = 0; blob < C; ++blob) {
        double mean[D] = {0};
        for (int64_t j = blob; j < C * EACH; j += C)
            for (int64_t i = 0; i < D; ++i) mean[i] += samples[j * D + i] / EACH;
        assert_true(distance(mean, centroids + nearest(centroids, mean, C, D) * D, D) <= 1e-20);
    }
}

/* Fewer different samples than centroids: a total of 0, equal centroids, empty clusters. */
static void test_few_different(void **state) {
    (void)state;
    enum { N = 10, C = 7, D = 2 };
    double samples[N * D], centroids[C * D];
    for (int64_t different = 1; different <= 3; ++different) {
        for (int64_t i = 0; i < N * D; ++i) samples[i] = (double)(i / D % different * 3 + i % D);
        check(samples, N, C, D, centroids);
        for (int64_t c = 0; c < C; ++c)
            assert_true(distance(centroids + c * D, samples + nearest(samples, centroids + c * D, N, D) * D, D) == 0);
        for (int64_t j = 0; j < different; ++j)
            assert_true(distance(centroids + nearest(centroids, samples + j * D, C, D) * D, samples + j * D, D) == 0);
    }
    check(samples, 3, C, D, centroids); /* more centroids than samples */
}

/* Two clusters that no sample is nearest to, in one step: they take the farthest sample and the next. Small integers
 * with many ties make empty clusters common; the loops say what becomes of them. */
static void test_empty(void **state) {
    (void)state;
    enum { N = 12, C = 8, D = 1 };
    double samples[N], centroids[C];
    for (int64_t round = 0; round < 60; ++round) {
        for (int64_t i = 0; i < N; ++i) samples[i] = floor(6 * (value(round * N + i) + 0.5));
        check(samples, N, C, D, centroids);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loops),
        cmocka_unit_test(test_blobs),
        cmocka_unit_test(test_few_different),
        cmocka_unit_test(test_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
