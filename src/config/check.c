#include <string.h>

#include "config/loader.h"

static const struct origin *origin_of(const struct loader *loader, const char *name) {
    return &loader->origins[key_find(name) - config_keys];
}

static enum status at_most(const struct loader *loader, const char *name, int64_t value, const char *other,
                           int64_t most) {
    if (value <= most) return STATUS_OK;
    return loader_fail(origin_of(loader, name), name, "expected at most %s = %lld, found %lld", other, (long long)most,
                       (long long)value);
}

/* Absolute positions know no memory: its default becomes 0, a request for one is an error. */
static enum status check_memory(struct loader *loader) {
    struct config *config = &loader->config;
    if (config->model.attention != ATTENTION_ABSOLUTE) return STATUS_OK;
    const struct origin *memory = origin_of(loader, "model.memory"), *eval = origin_of(loader, "eval.memory");
    if (!memory->source) config->model.memory = 0;
    if (config->model.memory != 0)
        return loader_fail(memory, "model.memory", "expected 0 with model.attention: absolute, found %lld",
                           (long long)config->model.memory);
    if (config->eval.memory > 0)
        return loader_fail(eval, "eval.memory", "expected 0 or auto with model.attention: absolute, found %lld",
                           (long long)config->eval.memory);
    return STATUS_OK;
}

/* enwik8 and text8 are one file, cut by bytes: another file would be ignored in silence. */
static enum status check_data(const struct loader *loader) {
    const struct config *config = &loader->config;
    bool one = config->data.kind == DATA_ENWIK8 || config->data.kind == DATA_TEXT8;
    const char *name = !one ? NULL : config->data.valid[0] ? "data.valid" : config->data.test[0] ? "data.test" : NULL;
    if (!name) return STATUS_OK;
    return loader_fail(
        origin_of(loader, name), name,
        "expected nothing where data.kind is enwik8 or text8 (data.train is cut into splits), found '%s'",
        config->data.valid[0] ? config->data.valid : config->data.test);
}

enum status loader_check(struct loader *loader) {
    const struct config *config = &loader->config;
    enum status status;
    if (config->model.d_model % 2)
        return loader_fail(origin_of(loader, "model.d_model"), "model.d_model",
                           "expected an even number (half sines, half cosines), found %lld",
                           (long long)config->model.d_model);
    status = at_most(loader, "router.top_k", config->router.top_k, "moe.experts", config->moe.experts);
    if (status) return status;
    int64_t k_max = config->router.k_max ? config->router.k_max : config->moe.experts;
    status = at_most(loader, "router.k_max", config->router.k_max, "moe.experts", config->moe.experts);
    if (status) return status;
    status = at_most(loader, "router.k_min", config->router.k_min, "router.k_max", k_max);
    if (status) return status;
    status = at_most(loader, "train.accumulate", config->train.accumulate, "train.batch", config->train.batch);
    if (status) return status;
    if ((status = check_data(loader))) return status;
    return check_memory(loader);
}

int64_t config_total_steps(const struct config *config) {
    return config->optim.decay_steps ? config->optim.decay_steps : config->train.steps;
}

int64_t config_switch_step(const struct config *config) {
    int64_t tenth = config_total_steps(config) / 10;
    return config->router.switch_step ? config->router.switch_step : tenth > 1 ? tenth : 1;
}

enum status config_check_resumed(const struct config *config, const struct config *written, const char *source) {
    static const char *const names[] = {"run.seed",
                                        "data.kind",
                                        "data.newlines",
                                        "model.attention",
                                        "model.norm",
                                        "model.segment",
                                        "model.softmax",
                                        "model.tied",
                                        "moe.mode",
                                        "moe.share_norm",
                                        "moe.discrete_norm",
                                        "router.kind",
                                        "router.top_k",
                                        "router.normalize",
                                        "router.capacity",
                                        "router.two_stage",
                                        "router.switch_step",
                                        "router.k_min",
                                        "router.k_max",
                                        "router.tau",
                                        "quantizer.kind",
                                        "quantizer.straight_through",
                                        "quantizer.contribution",
                                        "quantizer.decay",
                                        "classifier.length",
                                        "classifier.weights",
                                        "train.batch"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char now[CONFIG_TEXT], then[CONFIG_TEXT];
        key_format(key_find(names[i]), config, now, sizeof now);
        key_format(key_find(names[i]), written, then, sizeof then);
        if (strcmp(now, then) != 0)
            return status_fail(STATUS_CHECKPOINT,
                               "%s: %s: expected %s, as this run is configured, found %s; to take "
                               "its weights alone into a new run: --init-from",
                               source, names[i], now, then);
    }
    return STATUS_OK;
}
