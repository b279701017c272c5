/* Codebook collapse, made visible and cured. A skewed corpus: pairs of symbols whose first follows Zipf's law with
 * exponent 2 (61% are one of 32), the second is a function of it. A VQMoE of one layer is trained on it for 800 steps,
 * 24 codes, seeds 1, 2, 3. A code is in use if any of the 51,200 tokens of the last 100 steps has it.
 *
 *                   in use      with at least 1% of a fair share
 * vq                10 10 10    10  9  8
 * ema               24 24 24    24 24 24
 * frozen_linear     23 22 23    12 17 13
 * online_clustered  24 24 24    24 24 24
 *
 * Mean over the seeds: plain `vq` must lose more than 40% of its codes, `ema`, `frozen_linear` and `online_clustered`
 * keep 90%. What that takes: docs/proofs.md, Collapse. Usage: test_collapse [KEY=VALUE ...]: settings that overrule
 * those of the test. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/log.h"
#include "train/optimizer.h"
#include "train/step.h"

enum { V = 32, CODES = 24, LAST = 100, SEEDS = 3 };

static const char *const base[] = {
    "model.layers=1",   "model.d_model=16", "model.heads=2",   "model.d_head=8",     "model.d_inner=16",
    "model.segment=32", "model.memory=0",   "moe.experts=4",   "quantizer.codes=24", "quantizer.decay=0.9",
    "optim.lr=0.0015",  "train.batch=16",   "train.steps=800",
};
enum { BASE = sizeof base / sizeof *base, SETTINGS = BASE + 32 };

static const struct expectation {
    const char *kind;
    double least, most; /* share of the codes in use, mean over the seeds */
} expectations[] = {
    {"vq", 0, 0.6},
    {"ema", 0.9, 1},
    {"frozen_linear", 0.9, 1},
    {"online_clustered", 0.9, 1},
};

/* Zipf's law with exponent 2 over V symbols. */
static int32_t zipf(uint64_t seed, int64_t row, int64_t at) {
    uint64_t word = hash_splitmix64(hash_splitmix64(seed * 1000003 + (uint64_t)row) ^ (uint64_t)at);
    double left = (double)(word >> 11) * 0x1p-53, sum = 0;
    for (int i = 1; i <= V; ++i) sum += 1.0 / (i * i);
    for (int32_t i = 1; i < V; ++i)
        if ((left -= 1.0 / (i * i) / sum) < 0) return i - 1;
    return V - 1;
}

static int32_t symbol(uint64_t seed, int64_t row, int64_t at) {
    return at % 2 ? (zipf(seed, row, at - 1) + 7) % V : zipf(seed, row, at);
}

static void read_batch(const struct config *config, int64_t number, int32_t *tokens, int32_t *targets) {
    int64_t T = config->model.segment;
    for (int64_t i = 0; i < config->train.batch * T; ++i) {
        tokens[i] = symbol((uint64_t)config->run.seed, i / T, number * T + i % T);
        targets[i] = symbol((uint64_t)config->run.seed, i / T, number * T + i % T + 1);
    }
}

/* Tokens per code over the last steps. */
static void train(const struct config *config, struct comm *world, double *usage, double *loss) {
    struct model model;
    struct step step;
    if (model_init(&model, config, V, 0, world, true)) FATAL("%s", status_message());
    model_start(&model);
    step_init(&step, &model);
    if (step.codes != CODES) FATAL("expected %d codes", CODES);
    int32_t *tokens = calloc((size_t)(2 * config->train.batch * config->model.segment), sizeof *tokens),
            *targets = tokens + config->train.batch * config->model.segment;
    for (int64_t i = 0; i < config->train.steps; ++i) {
        read_batch(config, i, tokens, targets);
        step_gradients(&step, i, NULL, tokens, targets);
        optimizer_update(&model, i);
        model_after_step(&model, i);
        if (i < config->train.steps - LAST) continue;
        for (int m = 0; m < CODES; ++m) usage[m] += step.stats.usage[m];
        *loss += step.stats.task / LAST;
    }
    free(tokens);
    step_free(&step);
    model_free(&model);
}

/* Returns the codes in use. */
static int run(const char *kind, int seed, struct comm *world, int argc, char **argv) {
    struct config config;
    const char *settings[SETTINGS];
    char of_kind[64], of_seed[32];
    int n = 0, used = 0, well = 0;
    double usage[CODES] = {0}, sum = 0, loss = 0;
    snprintf(of_kind, sizeof of_kind, "quantizer.kind=%s", kind);
    snprintf(of_seed, sizeof of_seed, "run.seed=%d", seed);
    for (int i = 0; i < BASE; ++i) settings[n++] = base[i];
    settings[n++] = of_kind;
    settings[n++] = of_seed;
    for (int i = 1; i < argc && n < SETTINGS; ++i) settings[n++] = argv[i];
    if (config_load(&config, NULL, 0, settings, n)) FATAL("%s", status_message());
    train(&config, world, usage, &loss);
    for (int m = 0; m < CODES; ++m) sum += usage[m];
    for (int m = 0; m < CODES; ++m) {
        used += usage[m] > 0;
        well += usage[m] >= 0.01 * sum / CODES;
    }
    printf("  %2d in use, %2d well (loss %.3f)", used, well, loss);
    return used;
}

int main(int argc, char **argv) {
    struct comm *world = comm_self_new();
    int failures = 0;
    ops_init_cpu(1, PRECISION_FP32);
    for (size_t i = 0; i < sizeof expectations / sizeof *expectations; ++i) {
        const struct expectation *e = &expectations[i];
        double mean = 0;
        printf("%-18s", e->kind);
        for (int seed = 1; seed <= SEEDS; ++seed) {
            double share = (double)run(e->kind, seed, world, argc, argv) / CODES;
            mean += share / SEEDS;
        }
        printf("  mean %.0f%%\n", 100 * mean);
        failures += !(mean >= e->least && mean <= e->most);
        fflush(stdout);
    }
    printf("collapse: %d codes, %d failures\n", CODES, failures);
    comm_free(world);
    return failures ? 1 : 0;
}
