#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>

#include "train/sampling.h"

enum { V = 6, DRAWS = 60000 };

/* Probabilities 0.4, 0.1, 0.25, 0.05, 0.15, 0.05 at temperature 1. */
static const double p[V] = {0.4, 0.1, 0.25, 0.05, 0.15, 0.05};

static void scores_of(real scores[V]) {
    for (int i = 0; i < V; ++i) scores[i] = (real)(log(p[i]) + 3);
}

/* Fractions of evenly spread draws against the expected distribution, which is made to sum to 1. */
static void check(const struct sampling *sampling, const double expected[V]) {
    real scores[V];
    double found[V] = {0}, sum = 0;
    scores_of(scores);
    for (int i = 0; i < DRAWS; ++i) found[sample(sampling, scores, V, (i + 0.5) / DRAWS)] += 1.0 / DRAWS;
    for (int i = 0; i < V; ++i) sum += expected[i];
    for (int i = 0; i < V; ++i) assert_float_equal(found[i], expected[i] / sum, 2.0 / DRAWS);
}

static void all_of_them(void **state) {
    (void)state;
    check(&(struct sampling){.temperature = 1, .top_p = 1}, p);
}

static void temperature(void **state) {
    (void)state;
    double squared[V];
    for (int i = 0; i < V; ++i) squared[i] = p[i] * p[i];
    check(&(struct sampling){.temperature = 0.5, .top_p = 1}, squared);
    check(&(struct sampling){.temperature = 0, .top_p = 1, .top_k = 3}, (double[V]){1});
}

static void top_k(void **state) {
    (void)state;
    check(&(struct sampling){.temperature = 1, .top_p = 1, .top_k = 3}, (double[V]){0.4, 0, 0.25, 0, 0.15, 0});
    check(&(struct sampling){.temperature = 1, .top_p = 1, .top_k = 5}, (double[V]){0.4, 0.1, 0.25, 0.05, 0.15, 0});
    check(&(struct sampling){.temperature = 1, .top_p = 1, .top_k = 100}, p);
}

static void top_p(void **state) {
    (void)state;
    check(&(struct sampling){.temperature = 1, .top_p = 0.01}, (double[V]){1});
    check(&(struct sampling){.temperature = 1, .top_p = 0.6}, (double[V]){0.4, 0, 0.25});
    check(&(struct sampling){.temperature = 1, .top_p = 0.75}, (double[V]){0.4, 0, 0.25, 0, 0.15});
    /* of what top_k leaves: 0.4 / 0.65 reaches 0.6 alone */
    check(&(struct sampling){.temperature = 1, .top_p = 0.6, .top_k = 2}, (double[V]){1});
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_of_them), cmocka_unit_test(temperature),
                                       cmocka_unit_test(top_k), cmocka_unit_test(top_p)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
