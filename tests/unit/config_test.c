#include "config/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config/keys.h"

enum { MOST = 4 };

static void write_file(const char *path, const char *content) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(content, file);
    assert_int_equal(fclose(file), 0);
}

static int count(const char *const *list) {
    int n = 0;
    while (n < MOST && list[n]) n++;
    return n;
}

/* One YAML file of that content (NULL: none), then overrides. */
static enum status load(struct config *config, const char *yaml, const char *const overrides[MOST]) {
    const char *file = "config_test.yaml";
    if (yaml) write_file(file, yaml);
    status_clear();
    return config_load(config, &file, yaml ? 1 : 0, overrides, count(overrides));
}

#define SET(...) ((const char *const[MOST]){__VA_ARGS__})

static void expect_error(const char *yaml, const char *const overrides[MOST], const char *message) {
    struct config config;
    assert_int_equal(load(&config, yaml, overrides), STATUS_CONFIG);
    assert_string_equal(status_message(), message);
    status_clear();
}

static void test_defaults(void **state) {
    (void)state;
    struct config c;
    assert_int_equal(load(&c, "", SET(NULL)), STATUS_OK);
    assert_int_equal(c.preset, PRESET_PAPER);
    assert_string_equal(c.run.dir, "runs/config_test");
    assert_int_equal(c.data.newlines, NEWLINES_KEEP);
    assert_int_equal(c.model.layers, 4);
    assert_int_equal(c.model.memory, 512);
    assert_true(c.model.dropout == 0.1);
    assert_true(c.moe.share_norm && c.moe.discrete_norm);
    assert_string_equal(c.router.kind, "stablemoe");
    assert_int_equal(c.router.normalize, NORMALIZE_ALL);
    assert_true(c.router.balance == 0.01);
    assert_int_equal(c.quantizer.codes, 0);
    assert_int_equal(c.quantizer.straight_through, STRAIGHT_FULL);
    assert_int_equal(c.parallel.threads, 0);
    assert_true(c.optim.lr == 3.5e-4 && c.optim.clip == 0.25);
    assert_int_equal(c.eval.memory, -1);
    assert_int_equal(load(&c, NULL, SET(NULL)), STATUS_OK);
    assert_string_equal(c.run.dir, "runs/default");
}

/* The preset decides the defaults from wherever it stands, and never what a source sets. */
static void test_presets(void **state) {
    (void)state;
    struct config c;
    assert_int_equal(load(&c, "router.balance: 0.02\npreset: published\n", SET(NULL)), STATUS_OK);
    assert_int_equal(c.data.newlines, NEWLINES_DROP);
    assert_int_equal(c.router.normalize, NORMALIZE_TOPK);
    assert_int_equal(c.quantizer.straight_through, STRAIGHT_BLEND);
    assert_true(c.router.balance == 0.02);
    assert_int_equal(load(&c, "preset: published\n", SET("preset=paper")), STATUS_OK);
    assert_int_equal(c.router.normalize, NORMALIZE_ALL);
    assert_int_equal(load(&c, "", SET("preset=published")), STATUS_OK);
    assert_true(c.router.balance == 0);
}

static void test_overlays(void **state) {
    (void)state;
    struct config c;
    write_file("config_base.yaml", "model: {layers: 2, heads: 3}\nmoe:\n  # nothing yet\ndata.train: a b\n");
    write_file("config_over.yaml", "model.layers: 5\nmoe:\n  experts: 7\n  share_norm: false\n");
    const char *const files[] = {"config_base.yaml", "config_over.yaml"};
    const char *const sets[] = {"moe.experts=8", "moe.experts=9", "data.valid=x=y", "quantizer.codes=auto"};
    assert_int_equal(config_load(&c, files, 2, sets, 4), STATUS_OK);
    assert_int_equal(c.model.layers, 5);
    assert_int_equal(c.model.heads, 3);
    assert_int_equal(c.moe.experts, 9);
    assert_false(c.moe.share_norm);
    assert_string_equal(c.data.train, "a b");
    assert_string_equal(c.data.valid, "x=y");
    assert_string_equal(c.run.dir, "runs/config_base");
}

static void test_key_errors(void **state) {
    (void)state;
    expect_error("\nmodel:\n  layrs: 4\n", SET(NULL),
                 "config_test.yaml:3: model.layrs: unknown key; nearest: model.layers");
    expect_error("modl: {layers: 4}", SET(NULL), "config_test.yaml:1: modl.layers: unknown key; nearest: model.layers");
    expect_error("devise: cpu", SET(NULL), "config_test.yaml:1: devise: unknown key; nearest: device");
    expect_error("a: &a {a: *a}", SET(NULL), /* refers to itself */
                 "config_test.yaml:1: a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a: "
                 "unknown key; nearest: data.vocabulary");
    expect_error("model: 3", SET(NULL), "config_test.yaml:1: model: expected a mapping of keys, found a value");
    expect_error("model.layers: [1]", SET(NULL), "config_test.yaml:1: model.layers: expected a value, found a list");
    expect_error("moe:\n  experts:\n    a: 1\n", SET(NULL),
                 "config_test.yaml:2: moe.experts: expected a value, found a mapping");
    expect_error("model.layers: 3\nmodel:\n  layers: 3\n", SET(NULL),
                 "config_test.yaml:3: model.layers: set twice, first in line 1");
    expect_error("", SET("model.layrs=4"), "--set model.layrs=4: unknown key; nearest: model.layers");
    expect_error("", SET("model.layers"), "--set model.layers: expected key=value");
}

static void test_value_errors(void **state) {
    (void)state;
    const char *integers[] = {"abc", "", "0", "256", "1e2", "0x10", " 4", "4 ", "4.0", "99999999999999999999", "auto"};
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        char yaml[64], message[200];
        snprintf(yaml, sizeof yaml, "# first\n\nmodel.layers: '%s'\n", integers[i]);
        snprintf(message, sizeof message,
                 "config_test.yaml:3: model.layers: expected an integer from 1 to 255, found '%s'", integers[i]);
        expect_error(yaml, SET(NULL), message);
    }
    expect_error("", SET("model.layers=0"), "--set model.layers=0: expected an integer from 1 to 255, found '0'");
    expect_error("", SET("parallel.threads=0"),
                 "--set parallel.threads=0: expected an integer from 1 to 1024 or auto, found '0'");
    expect_error("", SET("moe.experts=65536"),
                 "--set moe.experts=65536: expected an integer from 1 to 65535, found '65536'");
    expect_error("", SET("model.dropout=1"), "--set model.dropout=1: expected a number from 0 to below 1, found '1'");
    expect_error("", SET("optim.lr=nan"), "--set optim.lr=nan: expected a number from 0 to 10, found 'nan'");
    expect_error("", SET("moe.share_norm=yes"), "--set moe.share_norm=yes: expected true or false, found 'yes'");
    expect_error("", SET("model.norm=pos"), "--set model.norm=pos: expected one of post|pre, found 'pos'");
    expect_error("", SET("router.kind=a_name_that_is_longer_than_it_fits"),
                 "--set router.kind=a_name_that_is_longer_than_it_fits: expected text of at most 31 bytes, found "
                 "'a_name_that_is_longer_than_it_fits'");
    expect_error("moe.mode: \"a\\nb\"", SET(NULL),
                 "config_test.yaml:1: moe.mode: expected one of joint|discrete|continuous, found 'a?b'");
}

static void test_file_errors(void **state) {
    (void)state;
    struct config c;
    const char *missing = "config_missing.yaml", *folder = ".";
    assert_int_equal(config_load(&c, &missing, 1, NULL, 0), STATUS_CONFIG);
    assert_string_equal(status_message(),
                        "config_missing.yaml: expected a configuration file, found: No such file or directory");
    status_clear();
    assert_int_equal(config_load(&c, &folder, 1, NULL, 0), STATUS_CONFIG);
    assert_string_equal(status_message(), ".: expected a configuration file, found: Is a directory");
    expect_error("model:\n  layers: [1\nmoe: 3\n", SET(NULL),
                 "config_test.yaml:3: expected YAML, found: while parsing a flow sequence: did not find expected ',' "
                 "or ']'");
    expect_error("- model\n", SET(NULL), "config_test.yaml:1: expected a mapping of keys, found a list");
    expect_error("model\n", SET(NULL), "config_test.yaml:1: expected a mapping of keys, found a value");
    expect_error("[a]: 3\n", SET(NULL), "config_test.yaml:1: expected a key, found a list or mapping");
    expect_error("preset: paper\n---\ndevice: cpu\n", SET(NULL),
                 "config_test.yaml:3: expected one YAML document, found another");
}

static void test_checks_across_keys(void **state) {
    (void)state;
    struct config c;
    expect_error("moe.experts: 2\nrouter.top_k: 3", SET(NULL),
                 "config_test.yaml:2: router.top_k: expected at most moe.experts = 2, found 3");
    expect_error("", SET("train.accumulate=45"),
                 "--set train.accumulate=45: expected at most train.batch = 44, found 45");
    expect_error("", SET("train.batch=4", "train.accumulate=5"),
                 "--set train.accumulate=5: expected at most train.batch = 4, found 5");
    expect_error("", SET("model.d_model=255"),
                 "--set model.d_model=255: expected an even number (half sines, half cosines), found 255");
    expect_error("model: {attention: absolute,\n memory: 8}", SET(NULL),
                 "config_test.yaml:2: model.memory: expected 0 with model.attention: absolute, found 8");
    expect_error("", SET("model.attention=absolute", "eval.memory=1"),
                 "--set eval.memory=1: expected 0 or auto with model.attention: absolute, found 1");
    expect_error(
        "", SET("data.kind=enwik8", "data.valid=v"),
        "--set data.valid=v: expected nothing where data.kind is enwik8 or text8 (data.train is cut into splits), "
        "found 'v'");
    assert_int_equal(load(&c, "", SET("model.attention=absolute")), STATUS_OK);
    assert_int_equal(c.model.memory, 0);
}

/* Awkward values in every kind of key. */
static void load_odd(struct config *config) {
    const char *yaml = "preset: published\n"
                       "run: {dir: \"a \\\"b\\\" \\\\ # \\t \\xe9 caf\u00e9\", seed: 4294967295}\n"
                       "optim: {lr: 0.1234567890123456789, clip: 1e-6}\n"
                       "model: {attention: absolute, dropout: 0.3}\n"
                       "data: {train: 'true', valid: '-1', test: '~'}\n";
    assert_int_equal(load(config, yaml, SET("quantizer.codes=65535", "moe.discrete_norm=false", "eval.memory=0")),
                     STATUS_OK);
}

static void assert_same(const struct config *a, const struct config *b) {
    for (int i = 0; i < config_n_keys; i++) {
        char x[CONFIG_TEXT], y[CONFIG_TEXT];
        key_format(&config_keys[i], a, x, sizeof x);
        key_format(&config_keys[i], b, y, sizeof y);
        assert_string_equal(x, y);
    }
    assert_true(a->optim.lr == b->optim.lr);
}

static void test_json_round_trip(void **state) {
    (void)state;
    struct config first, second;
    load_odd(&first);
    char *json = config_to_json(&first);
    assert_int_equal(config_load_json(&second, json, "last.h5", NULL, 0), STATUS_OK);
    assert_same(&first, &second);
    first.run.seed = 1000000000000000; /* cJSON prints it as 1e+15 */
    char *large = config_to_json(&first);
    assert_int_equal(config_load_json(&second, large, "last.h5", NULL, 0), STATUS_OK);
    assert_int_equal(second.run.seed, first.run.seed);
    free(large);
    const char *const sets[] = {"train.steps=7"};
    assert_int_equal(config_load_json(&second, json, "last.h5", sets, 1), STATUS_OK);
    assert_int_equal(second.train.steps, 7);
    free(json);

    const char *const bad[][2] = {
        {"{\"model.layers\": 0}", "last.h5: model.layers: expected an integer from 1 to 255, found '0'"},
        {"{\"model.layers\": [1]}", "last.h5: model.layers: expected an integer from 1 to 255, found '[1]'"},
        {"{\"model.layer\": 1}", "last.h5: model.layer: unknown key; nearest: model.layers"},
        {"{\"device\": \"cpu\", \"device\": \"cpu\"}", "last.h5: device: set twice"},
        {"{\"device\": ", "last.h5: expected a JSON object of configuration keys"},
        {"[]", "last.h5: expected a JSON object of configuration keys"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        status_clear();
        assert_int_equal(config_load_json(&second, bad[i][0], "last.h5", NULL, 0), STATUS_CONFIG);
        assert_string_equal(status_message(), bad[i][1]);
    }
    status_clear();
}

static void test_yaml_round_trip(void **state) {
    (void)state;
    struct config first, second;
    load_odd(&first);
    FILE *out = fopen("config_printed.yaml", "w");
    assert_non_null(out);
    config_print_yaml(&first, out);
    fclose(out);
    const char *file = "config_printed.yaml";
    assert_int_equal(config_load(&second, &file, 1, NULL, 0), STATUS_OK);
    assert_same(&first, &second);
}

static void test_table(void **state) {
    (void)state;
    for (int i = 0; i < config_n_keys; i++) {
        const struct config_key *key = &config_keys[i];
        struct config config = {0};
        assert_true(strlen(key->name) < CONFIG_NAME);
        assert_ptr_equal(key_find(key->name), key); /* no name twice */
        assert_true(key_parse(key, key_default(key, PRESET_PAPER), &config));
        assert_true(key_parse(key, key_default(key, PRESET_PUBLISHED), &config));
    }
}

static void test_help(void **state) {
    (void)state;
    char *help = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&help, &size);
    config_print_help(out);
    fclose(out);
    for (int i = 0; i < config_n_keys; i++) {
        char line[CONFIG_NAME + 2];
        snprintf(line, sizeof line, "\n%s ", config_keys[i].name);
        assert_non_null(strstr(help, line));
    }
    for (char *line = strtok(help, "\n"); line; line = strtok(NULL, "\n")) assert_true(strlen(line) <= 110);
    free(help);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_overlays),
        cmocka_unit_test(test_key_errors),
        cmocka_unit_test(test_value_errors),
        cmocka_unit_test(test_file_errors),
        cmocka_unit_test(test_checks_across_keys),
        cmocka_unit_test(test_json_round_trip),
        cmocka_unit_test(test_yaml_round_trip),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
