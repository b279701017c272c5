/* The genuine sets, where they are: $VQMOE_SAMPLES, or the folder of samples beside the sources. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/status.h"
#include "data/batches.h"
#include "data/permutation.h"
#include "labelled.h"

enum { SKIPPED = 77, ROWS = 32, LENGTH = 512 };

static char folder[400];

static const char *in_folder(char *path, const char *name) {
    snprintf(path, CONFIG_TEXT, "%s/%s", folder, name);
    return name[0] ? path : "";
}

static struct labelled open_set(enum data_kind kind, const char *train, const char *valid, const char *test) {
    struct labelled labelled;
    char a[CONFIG_TEXT], b[CONFIG_TEXT], c[CONFIG_TEXT];
    struct config config = labelled_config(kind, in_folder(a, train), in_folder(b, valid), in_folder(c, test));
    if (labelled_open(&labelled, &config)) fail_msg("%s", status_message());
    return labelled;
}

static void counts_are(const struct labelled *labelled, int64_t train, int64_t valid, int64_t test, int64_t classes) {
    const int64_t expected[SPLITS] = {train, valid, test};
    for (int s = 0; s < SPLITS; ++s) assert_int_equal(labelled->splits[s].count, expected[s]);
    assert_int_equal(labelled->n_classes, classes);
}

static void classes_are(const struct examples *examples, const int64_t *expected, int64_t classes) {
    for (int64_t c = 0; c < classes; ++c) {
        int64_t count = 0;
        for (int64_t i = 0; i < examples->count; ++i) count += examples->label[i] == c;
        assert_int_equal(count, expected[c]);
    }
}

static void text_is(const struct examples *examples, int64_t i, const char *expected) {
    assert_int_equal(examples->offset[i + 1] - examples->offset[i], strlen(expected));
    assert_memory_equal(examples->bytes + examples->offset[i], expected, strlen(expected));
}

/* Symbols of all batches of an epoch, and those of its texts. */
static int64_t padded_symbols(struct batches *batches, int64_t *real) {
    int64_t numbers[ROWS], padded = 0;
    *real = 0;
    for (int64_t b = 0; b < batches_per_epoch(batches); ++b) {
        int64_t n = batches_read(batches, 0, b, numbers), most = 0;
        for (int64_t i = 0; i < n; ++i) {
            const int64_t *offset = batches->examples->offset + numbers[i];
            int64_t symbols = offset[1] - offset[0] + 1 < LENGTH ? offset[1] - offset[0] + 1 : LENGTH;
            if (symbols > most) most = symbols;
            *real += symbols;
        }
        padded += n * most;
    }
    return padded;
}

/* What buckets save: against batches in file order, which is as good as random for lengths. */
static void measure_padding(const char *name, const struct examples *examples) {
    struct batches batches;
    int64_t real = 0, plain = 0;
    assert_int_equal(batches_init(&batches, examples, ROWS, LENGTH, 1, false), STATUS_OK);
    int64_t bucketed = padded_symbols(&batches, &real);
    struct permutation order = permutation_of(1, 0, examples->count);
    for (int64_t i = 0; i < examples->count; i += ROWS) {
        int64_t n = examples->count - i < ROWS ? examples->count - i : ROWS, most = 0;
        for (int64_t j = i; j < i + n; ++j) {
            const int64_t *offset = examples->offset + permutation_at(&order, j);
            int64_t symbols = offset[1] - offset[0] + 1 < LENGTH ? offset[1] - offset[0] + 1 : LENGTH;
            if (symbols > most) most = symbols;
        }
        plain += n * most;
    }
    printf("%s: %.3f symbols computed for one of text in buckets, %.3f without\n", name,
           (double)bucketed / (double)real, (double)plain / (double)real);
    assert_true(bucketed < 1.1 * (double)real);
    assert_true(plain > 1.3 * (double)real);
    batches_free(&batches);
}

static void test_banking77(void **state) {
    (void)state;
    struct labelled set = open_set(DATA_CSV, "banking77/train.csv", "banking77/train.csv", "banking77/test_half.csv");
    counts_are(&set, 10003, 10003, 1540, 77);
    text_is(&set.splits[SPLIT_TRAIN], 0, "I am still waiting on my card?");
    assert_string_equal(set.classes[0], "Refund_not_showing_up");
    for (int c = 0, n; c < 77; ++c) {
        n = 0;
        for (int i = 0; i < 1540; ++i) n += set.splits[SPLIT_TEST].label[i] == c;
        assert_int_equal(n, 20);
    }
    measure_padding("BANKING77", &set.splits[SPLIT_TRAIN]);
    labelled_free(&set);
    set = open_set(DATA_CSV, "banking77/train.csv", "", "banking77/test_half.csv");
    counts_are(&set, 10003 - 985, 985, 1540, 77);
    labelled_free(&set);
}

static void test_sst2(void **state) {
    (void)state;
    struct labelled set = open_set(DATA_TSV, "sst2/train.tsv", "sst2/dev.tsv", "");
    counts_are(&set, 67349, 872, 0, 2);
    classes_are(&set.splits[SPLIT_TRAIN], (int64_t[]){29780, 37569}, 2);
    classes_are(&set.splits[SPLIT_VALID], (int64_t[]){428, 444}, 2);
    text_is(&set.splits[SPLIT_TRAIN], 0, "hide new secretions from the parental units");
    measure_padding("SST-2", &set.splits[SPLIT_TRAIN]);
    labelled_free(&set);
}

static void test_sst2_sentences(void **state) {
    (void)state;
    struct labelled set = open_set(DATA_TSV, "sst2/sentence-level/train.tsv", "sst2/sentence-level/dev.tsv", "");
    counts_are(&set, 6920, 872, 0, 2);
    labelled_free(&set);
}

static void test_sst5(void **state) {
    (void)state;
    struct labelled set = open_set(DATA_TREES, "sst5/trees/train.txt", "sst5/trees/dev.txt", "");
    counts_are(&set, 8544, 1101, 0, 5);
    classes_are(&set.splits[SPLIT_TRAIN], (int64_t[]){1092, 2218, 1624, 2322, 1288}, 5);
    classes_are(&set.splits[SPLIT_VALID], (int64_t[]){139, 289, 229, 279, 165}, 5);
    text_is(&set.splits[SPLIT_TRAIN], 0,
            "The Rock is destined to be the 21st Century 's new `` Conan '' and that he 's going to make a splash even "
            "greater than Arnold Schwarzenegger , Jean-Claud Van Damme or Steven Segal .");
    labelled_free(&set);
}

static void test_imdb(void **state) {
    (void)state;
    struct labelled set = open_set(DATA_IMDB, "imdb/aclImdb_part.tar.gz", "imdb/aclImdb_part.tar.gz", "");
    counts_are(&set, 25000, 25000, 12500, 2);
    classes_are(&set.splits[SPLIT_TRAIN], (int64_t[]){12500, 12500}, 2);
    classes_are(&set.splits[SPLIT_TEST], (int64_t[]){6250, 6250}, 2);
    const struct examples *test = &set.splits[SPLIT_TEST];
    assert_string_equal(test->places + test->place[6250], "test/pos/0_10.txt");
    labelled_free(&set);
}

int main(void) {
    const char *said = getenv("VQMOE_SAMPLES");
    char readme[CONFIG_TEXT];
    snprintf(folder, sizeof folder, "%s", said ? said : SAMPLES);
    snprintf(readme, sizeof readme, "%s/banking77/train.csv", folder);
    if (access(readme, R_OK)) return SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_banking77), cmocka_unit_test(test_sst2), cmocka_unit_test(test_sst2_sentences),
        cmocka_unit_test(test_sst5),      cmocka_unit_test(test_imdb),
    };
    return cmocka_run_group_tests_name("labelled samples", tests, NULL, NULL);
}
