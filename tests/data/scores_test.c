#include "train/scores.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"

static struct scores scores_of(int64_t classes, const int32_t *class, const int32_t *predicted, int n) {
    struct scores scores;
    assert_int_equal(scores_init(&scores, classes), STATUS_OK);
    for (int i = 0; i < n; ++i) scores_add(&scores, class[i], predicted[i]);
    return scores;
}

/* Figures of scikit-learn 1.9.1: accuracy_score, and f1_score with average "macro" and all labels. */
static void test_known(void **state) {
    (void)state;
    const int32_t class[] = {0, 0, 0, 1, 1, 2, 2, 2, 2, 4}, predicted[] = {0, 1, 0, 1, 4, 2, 2, 0, 2, 2};
    struct scores scores = scores_of(5, class, predicted, 10);
    assert_true(fabs(scores_accuracy(&scores) - 0.6) < 1e-15);
    assert_true(fabs(scores_macro_f1(&scores) - 0.3833333333333333) < 1e-15);
    scores_free(&scores);
    assert_int_equal(scores_init(&scores, 3), STATUS_OK);
    assert_true(scores_accuracy(&scores) == 0 && scores_macro_f1(&scores) == 0); /* of nothing */
    scores_free(&scores);
}

/* Precision and recall of one class, counted over the examples themselves. */
static double f1_of(const int32_t *class, const int32_t *predicted, int n, int32_t c) {
    double hits = 0, is = 0, said = 0;
    for (int i = 0; i < n; ++i) {
        hits += class[i] == c && predicted[i] == c;
        is += class[i] == c;
        said += predicted[i] == c;
    }
    double precision = said > 0 ? hits / said : 0, recall = is > 0 ? hits / is : 0;
    return precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
}

static void test_many(void **state) {
    (void)state;
    enum { N = 3000, CLASSES = 77 };
    static int32_t class[N], predicted[N];
    double hits = 0, f1 = 0;
    for (int i = 0; i < N; ++i) {
        uint64_t draw = hash_splitmix64((uint64_t)i);
        class[i] = (int32_t)(draw % 70);
        predicted[i] = draw >> 32 & 1 ? class[i] : (int32_t)(draw >> 40) % CLASSES;
        hits += class[i] == predicted[i];
    }
    for (int32_t c = 0; c < CLASSES; ++c) f1 += f1_of(class, predicted, N, c) / CLASSES;
    struct scores scores = scores_of(CLASSES, class, predicted, N);
    assert_true(fabs(scores_accuracy(&scores) - hits / N) < 1e-12);
    assert_true(fabs(scores_macro_f1(&scores) - f1) < 1e-12);
    scores_free(&scores);
}

/* ---- Tables ---- */

/* What scores_log prints. */
static void print_to(const char *path, const struct scores *scores, char *const *names) {
    fflush(stdout);
    int out = dup(STDOUT_FILENO);
    assert_non_null(freopen(path, "w", stdout));
    scores_log(scores, names);
    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    close(out);
}

static void file_is(const char *path, const char *expected) {
    char found[4096];
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    found[fread(found, 1, sizeof found - 1, file)] = '\0';
    fclose(file);
    assert_string_equal(found, expected);
}

static void test_tables(void **state) {
    (void)state;
    char *names[] = {"neg", "a name of many letters", "\xC3\xA9\n\t"};
    struct scores scores = scores_of(3, (int32_t[]){0, 0, 1, 2}, (int32_t[]){0, 2, 1, 1}, 4);
    print_to("scores.txt", &scores, names);
    file_is("scores.txt", "is \\ taken for            neg a name o      \xC3\xA9  \n"
                          "neg                         1        0        1\n"
                          "a name of many lette        0        1        0\n"
                          "\xC3\xA9                           0        1        0\n");
    assert_int_equal(scores_write(&scores, names, "scores.tsv"), STATUS_OK);
    file_is("scores.tsv", "class\tneg\ta name of many letters\t\xC3\xA9  \n"
                          "neg\t1\t0\t1\n"
                          "a name of many letters\t0\t1\t0\n"
                          "\xC3\xA9  \t0\t1\t0\n");
    assert_int_equal(access("scores.tsv.tmp", F_OK), -1);
    assert_int_equal(scores_write(&scores, names, "no/such/folder/scores.tsv"), STATUS_WRITE);
    assert_string_equal(status_message(), "no/such/folder/scores.tsv: cannot write: No such file or directory");
    status_clear();
    scores_free(&scores);
}

static void test_pairs(void **state) {
    (void)state;
    enum { CLASSES = 20 };
    char *names[CLASSES], bytes[CLASSES][24];
    struct scores scores;
    assert_int_equal(scores_init(&scores, CLASSES), STATUS_OK);
    for (int c = 0; c < CLASSES; ++c) snprintf(names[c] = bytes[c], sizeof bytes[c], "class %d", c);
    scores.confusion[3 * CLASSES + 3] = 99;
    scores.confusion[3 * CLASSES + 19] = 2;
    scores.confusion[7 * CLASSES] = 5;
    scores.confusion[19 * CLASSES + 3] = 2;
    print_to("pairs.txt", &scores, names);
    file_is("pairs.txt", "most confused of 20 classes:\n"
                         "      5 of     5  class 7                        taken for class 0                       \n"
                         "      2 of   101  class 3                        taken for class 19                      \n"
                         "      2 of     2  class 19                       taken for class 3                       \n");
    scores_free(&scores);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_pairs),
    };
    return cmocka_run_group_tests_name("scores", tests, NULL, NULL);
}
