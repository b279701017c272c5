#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "config/loader.h"

/* Values are the user's: a line break or control character in them must not tear our one line. */
static void make_printable(char *text) {
    for (; *text; text++)
        if (iscntrl((unsigned char)*text)) *text = '?';
}

enum status loader_fail(const struct origin *where, const char *name, const char *format, ...) {
    char place[400] = "", line[16] = "", text[600];
    if (where && where->source) {
        if (where->line) snprintf(line, sizeof line, ":%d", where->line);
        snprintf(place, sizeof place, "%s%.300s%s: ", where->kind == ORIGIN_SET ? "--set " : "", where->source, line);
        if (where->kind == ORIGIN_SET) name = NULL; /* it stands in "key=value" */
    }
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    make_printable(place);
    make_printable(text);
    return status_fail(STATUS_CONFIG, "%s%.100s%s%s", place, name ? name : "", name ? ": " : "", text);
}

enum status loader_set(struct loader *loader, const struct origin *where, const char *name, const char *text) {
    const struct config_key *key = key_find(name);
    if (!key) return loader_fail(where, name, "unknown key; nearest: %s", key_nearest(name)->name);
    struct origin *origin = &loader->origins[key - config_keys];
    if (origin->source && origin->nth == where->nth) {
        if (!where->line) return loader_fail(where, name, "set twice");
        return loader_fail(where, name, "set twice, first in line %d", origin->line);
    }
    if (!key_parse(key, text, &loader->config)) {
        char expected[200];
        key_expected(key, expected, sizeof expected);
        return loader_fail(where, name, "expected %s, found '%.100s'", expected, text);
    }
    *origin = *where;
    return STATUS_OK;
}

static enum status read_override(struct loader *loader, const char *override) {
    struct origin where = {override, ORIGIN_SET, 0, ++loader->n_sources};
    const char *equals = strchr(override, '=');
    char name[CONFIG_NAME];
    if (!equals || equals == override) return loader_fail(&where, NULL, "expected key=value");
    snprintf(name, sizeof name, "%.*s", (int)(equals - override), override);
    return loader_set(loader, &where, name, equals + 1);
}

/* Keys that no source set get the default of the preset, which a source may have set at any place. */
static void set_defaults(struct loader *loader) {
    struct config *config = &loader->config;
    for (int i = 0; i < config_n_keys; i++)
        if (!loader->origins[i].source)
            key_parse(&config_keys[i], key_default(&config_keys[i], config->preset), config);
}

/* runs/NAME after the file that names the experiment: configs/lm/NAME.yaml. */
static void set_run_dir(struct config *config, const char *file) {
    if (config->run.dir[0]) return;
    const char *slash = strrchr(file, '/');
    const char *base = slash ? slash + 1 : file;
    const char *dot = strrchr(base, '.');
    int length = dot && dot > base ? (int)(dot - base) : (int)strlen(base);
    snprintf(config->run.dir, sizeof config->run.dir, "runs/%.*s", length, base);
}

static enum status finish(struct config *config, struct loader *loader, const char *const *overrides, int n_overrides,
                          const char *file) {
    for (int i = 0; i < n_overrides; i++) {
        enum status status = read_override(loader, overrides[i]);
        if (status) return status;
    }
    set_defaults(loader);
    enum status status = loader_check(loader);
    if (status) return status;
    *config = loader->config;
    set_run_dir(config, file);
    return STATUS_OK;
}

enum status config_load(struct config *config, const char *const *files, int n_files, const char *const *overrides,
                        int n_overrides) {
    struct loader loader = {0};
    for (int i = 0; i < n_files; i++) {
        enum status status = loader_read_yaml(&loader, files[i]);
        if (status) return status;
    }
    return finish(config, &loader, overrides, n_overrides, n_files > 0 ? files[0] : "default");
}

enum status config_load_json(struct config *config, const char *json, const char *source, const char *const *overrides,
                             int n_overrides) {
    struct loader loader = {0};
    enum status status = loader_read_json(&loader, json, source, NULL);
    if (status) return status;
    return finish(config, &loader, overrides, n_overrides, "default");
}

enum status config_load_finetune(struct config *config, const char *json, const char *source, const char *const *files,
                                 int n_files, const char *const *overrides, int n_overrides) {
    static const char *const sections[] = {"model", "moe", "router", "quantizer", NULL};
    static const char *const others[] = {"model.kind=classifier", "model.memory=0",      "moe.mode=discrete",
                                         "optim.lr=0.0001",       "diagnostics.every=0", "train.log_every=50",
                                         "eval.batch=32"};
    struct loader loader = {0};
    enum status status = loader_read_json(&loader, json, source, sections);
    for (size_t i = 0; i < sizeof others / sizeof *others && !status; i++) status = read_override(&loader, others[i]);
    for (int i = 0; i < n_files && !status; i++) status = loader_read_yaml(&loader, files[i]);
    if (status) return status;
    return finish(config, &loader, overrides, n_overrides, n_files > 0 ? files[0] : "finetune");
}
