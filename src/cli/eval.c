#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "data/noise.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"

static enum status find_split(const char *name, enum split *split) {
    for (int i = 0; i < SPLITS; ++i)
        if (!strcmp(split_names[i], name)) {
            *split = (enum split)i;
            return STATUS_OK;
        }
    return status_fail(STATUS_CONFIG, "--split: expected train, valid or test, found '%s'", name);
}

/* The data's alphabet is the checkpoint's, symbol by symbol; the data may lack some of them. */
static enum status take_alphabet(struct text *text, const uint8_t *bytes, int64_t V, const char *path) {
    int16_t symbol_of[256];
    for (int i = 0; i < 256; ++i) symbol_of[i] = -1;
    for (int64_t i = 0; i < V; ++i) symbol_of[bytes[i]] = (int16_t)i;
    for (int i = 0; i < 256; ++i)
        if (text->symbol_of[i] >= 0 && symbol_of[i] < 0)
            return status_fail(STATUS_DATA, "%s: expected only the %lld bytes of %s, found byte %d",
                               text->splits[SPLIT_TRAIN].path, (long long)V, path, i);
    memcpy(text->symbol_of, symbol_of, sizeof symbol_of);
    if (text->splits[SPLIT_TRAIN].block_symbols) text->symbol_of['\n'] = -1; /* dropped: still no symbol */
    memcpy(text->byte_of, bytes, (size_t)V);
    text->vocabulary = (int)V;
    return STATUS_OK;
}

static enum status run(struct lm *lm, const struct text *text, enum split split, const struct arguments *arguments,
                       int64_t step) {
    struct arena arena = {0};
    struct evaluation result;
    const char *path = arguments->files[0];
    char noise[64] = "";
    if (arguments->noise > 0)
        snprintf(noise, sizeof noise, ", noise %g (seed %lld)", arguments->noise, (long long)arguments->seed);
    enum status status = checkpoint_read_parameters(path, lm);
    if (!status) status = evaluate(&result, lm, text, split, step, &arena);
    if (!status)
        log_info("%s: loss %.6f nats, %.4f bpc, perplexity %.3f, %lld tokens, after step %lld%s", split_names[split],
                 result.loss, result.loss / M_LN2, exp(result.loss), (long long)result.tokens, (long long)step, noise);
    if (!status && !isfinite(result.loss))
        status = comm_agree(
            lm->world, status_fail(STATUS_NOT_FINITE, "%s: expected a finite loss, found %g nats", path, result.loss));
    arena_free(&arena);
    return status;
}

enum status cli_eval(const struct arguments *arguments, struct comm *world) {
    struct config config;
    struct text text = {0};
    struct lm lm = {0};
    uint8_t bytes[256];
    int64_t V, step;
    enum split split = SPLIT_TEST;
    const char *path = arguments->files[0];
    enum status status = comm_agree(world, find_split(arguments->split, &split));
    if (!status)
        status = checkpoint_read_config(path, world, &config, arguments->overrides, arguments->n_overrides, bytes, &V,
                                        &step);
    if (!status) cli_start_ops(&config, world);
    if (!status) {
        status = text_open(&text, &config);
        if (!status) status = take_alphabet(&text, bytes, V, path);
        if (!status && arguments->noise > 0) status = noise_split(&text, split, arguments->noise, arguments->seed);
        status = comm_agree(world, status);
    }
    if (!status) status = comm_agree(world, lm_init(&lm, &config, V, world, false));
    if (!status) status = run(&lm, &text, split, arguments, step);
    lm_free(&lm);
    text_close(&text);
    return status;
}
