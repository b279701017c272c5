#include "toy.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "train/optimizer.h"

static const char *const base[] = {
    "model.layers=2",       "model.d_model=12",    "model.heads=2",
    "model.d_head=6",       "model.d_inner=10",    "model.segment=6",
    "model.memory=4",       "model.dropout=0.1",   "model.attention_dropout=0.1",
    "moe.experts=7",        "router.top_k=1",      "router.balance=0.1",
    "router.switch_step=4", "router.samples=40",   "router.k_min=2",
    "router.k_max=7",       "quantizer.alpha=0.2", "optim.lr=0.003",
    "train.batch=7",        "train.steps=12",      "eval.segment=6",
    "moe.mode=joint",
};

void *take_zeroed(size_t bytes) {
    void *data = calloc(1, bytes + 1);
    if (!data) abort();
    return data;
}

/* ---- A case, and a model of it ---- */

void variant_set(struct variant *variant, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (variant->n == SETTINGS) abort();
    vsnprintf(variant->settings[variant->n++], sizeof variant->settings[0], format, args);
    va_end(args);
}

struct variant variant_of(const char *name) {
    struct variant variant = {.n = 0};
    snprintf(variant.name, sizeof variant.name, "%s", name);
    for (size_t i = 0; i < sizeof base / sizeof *base; ++i) variant_set(&variant, "%s", base[i]);
    return variant;
}

enum status toy_init(struct toy *toy, const struct variant *variant, struct comm *comm) {
    const char *settings[SETTINGS];
    for (int i = 0; i < variant->n; ++i) settings[i] = variant->settings[i];
    *toy = (struct toy){.tokens = NULL};
    status_clear();
    enum status status = config_load(&toy->config, NULL, 0, settings, variant->n);
    if (!status) status = model_init(&toy->model, &toy->config, V, 0, comm, true);
    if (status) {
        model_free(&toy->model);
        return status;
    }
    step_init(&toy->step, &toy->model);
    routes_allocate(&toy->routes, &toy->step);
    toy->tokens = take_zeroed((size_t)toy->step.rows * T * sizeof *toy->tokens);
    toy->targets = take_zeroed((size_t)toy->step.rows * T * sizeof *toy->targets);
    return STATUS_OK;
}

void toy_free(struct toy *toy) {
    routes_free(&toy->routes, &toy->step);
    step_free(&toy->step);
    model_free(&toy->model);
    free(toy->tokens);
    free(toy->targets);
}

/* -1 .. 1, a function of its place. */
double noise(uint64_t a, uint64_t b) { return (double)(hash_splitmix64(hash_splitmix64(a) ^ b) >> 11) * 0x1p-52 - 1; }

/* Initial values of 0.02 leave everything nearly linear: these do not. */
static void shake(struct model *model) {
    for (int i = 0; i < model->params.count; ++i) {
        struct param *p = model->params.list[i];
        int64_t first = p->count ? p->first * (p->size / p->count) : 0;
        if (p->placement == PLACE_STATE) continue;
        size_t bytes = (size_t)p->size * sizeof(real);
        real *data = device_edit(p->data, bytes);
        for (int64_t j = 0; j < p->size; ++j)
            data[j] += (real)(0.4 * noise(hash_string(p->name), (uint64_t)(first + j)));
        device_edit_close(data, p->data, bytes);
    }
}

void toy_start(struct toy *toy) {
    model_start(&toy->model);
    shake(&toy->model);
}

/* ---- Steps and their routes ---- */

static int64_t choices_of(const struct toy *toy, int route, int64_t number) {
    return route == ROUTE_CODES ? 1 : router_choices(&toy->model.blocks[0].moe.router, number);
}

/* This rank's part of the history from there, or all of it back. */
static void transfer(struct toy *toy, struct history *history, int64_t number, bool keep) {
    for (int route = 0; route < ROUTE_PATHS; ++route)
        for (int64_t i = 0; toy->routes.choices[route] && i < toy->model.layers; ++i) {
            int64_t row = T * choices_of(toy, route, number);
            int32_t **all = &history->choices[number][route][i], *here = toy->routes.choices[route][i];
            if (!*all) *all = take_zeroed((size_t)(B * row) * sizeof **all);
            for (int64_t j = 0; j < toy->step.accumulate; ++j) {
                const struct micro_batch *micro = &toy->step.micro[j];
                int32_t *there = *all + micro->first * row, *own = here + micro->local * row;
                memcpy(keep ? there : own, keep ? own : there, (size_t)(micro->rows * row) * sizeof *own);
            }
        }
}

void history_free(struct history *history) {
    for (int s = 0; s < STEPS; ++s)
        for (int p = 0; p < ROUTE_PATHS; ++p)
            for (int i = 0; i < LAYERS; ++i) free(history->choices[s][p][i]);
}

/* Some symbols are far more frequent than others. */
static int32_t symbol(int64_t row, int64_t at) {
    double u = fabs(noise((uint64_t)row, (uint64_t)at));
    return (int32_t)(u * u * V);
}

static void read_batch(struct toy *toy, int64_t number) {
    for (int64_t j = 0; j < toy->step.accumulate; ++j) {
        const struct micro_batch *micro = &toy->step.micro[j];
        for (int64_t i = 0; i < micro->rows * T; ++i) {
            int64_t row = micro->first + i / T, at = number * T + i % T;
            toy->tokens[micro->local * T + i] = symbol(row, at);
            toy->targets[micro->local * T + i] = symbol(row, at + 1);
        }
    }
}

/* The routes are kept, or replayed. */
void toy_gradients(struct toy *toy, struct history *history, int64_t number, bool keep) {
    toy->routes.replay = !keep;
    if (!keep) transfer(toy, history, number, false);
    read_batch(toy, number);
    step_gradients(&toy->step, number, &toy->routes, toy->tokens, toy->targets);
    if (keep) transfer(toy, history, number, true);
}

double toy_step(struct toy *toy, struct history *history, int64_t number, bool keep) {
    toy_gradients(toy, history, number, keep);
    optimizer_update(&toy->model, number);
    model_after_step(&toy->model, number);
    return toy->step.stats.loss;
}
