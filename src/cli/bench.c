#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "cli/cli.h"
#include "train/footprint.h"
#include "train/optimizer.h"
#include "train/products.h"
#include "train/step.h"

enum { SYMBOLS = 205 }; /* distinct bytes of enwik8 */

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A line of /proc/self/status, in MiB. */
static double resident(const char *key) {
    char line[256];
    double mib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, strlen(key))) mib = strtod(line + strlen(key) + 1, NULL) / 1024;
    if (file) fclose(file);
    return mib;
}

static void random_batch(const struct step *step, int64_t number, int32_t *tokens, int32_t *targets) {
    int64_t n = step->rows * step->lm->config->model.segment;
    for (int64_t i = 0; i < n; ++i) {
        uint32_t words[4];
        rng_words(words, rng_place(1, number, RNG_SAMPLE, step->lm->world->rank, 0), (uint32_t)i, 0);
        tokens[i] = (int32_t)(words[0] % SYMBOLS);
        targets[i] = (int32_t)(words[1] % SYMBOLS);
    }
}

static double timed_step(struct step *step, int64_t number, int32_t *tokens, int32_t *targets) {
    random_batch(step, number, tokens, targets);
    comm_barrier(step->lm->world);
    double from = clock_seconds();
    step_gradients(step, number, NULL, tokens, targets);
    optimizer_update(step->lm, number);
    lm_after_step(step->lm, number);
    return clock_seconds() - from;
}

/* Max over mean of the rows that the ranks' experts had in the last step. */
static double rank_load(const struct step *step) {
    int64_t E = step->lm->E, first = step->lm->params.experts_first, count = step->lm->params.experts_count;
    double here = 0, most, all;
    for (int64_t i = 0; i < step->lm->layers; ++i)
        for (int64_t e = first; e < first + count && e < E; ++e) here += step->stats.load[i * E + e];
    most = all = here;
    comm_allreduce(step->lm->group, &most, 1, COMM_DOUBLE, COMM_MAX);
    comm_allreduce(step->lm->group, &all, 1, COMM_DOUBLE, COMM_SUM);
    return all > 0 ? most / all * step->lm->group->size : 1;
}

/* What was resident at most above what was before the model, against the formula. The largest over ranks, then rank 0's
 * parts. */
static void print_memory(const struct step *step, double before) {
    struct footprint footprint = footprint_of(step);
    double mib = 1.0 / (1 << 20), formula = (footprint.parameters + footprint.activations + footprint.memory) * mib;
    double seen[2] = {resident("VmHWM:") - before, formula};
    comm_allreduce(step->lm->world, seen, 2, COMM_DOUBLE, COMM_MAX);
    log_info(
        "memory of a rank above MPI: %.0f MiB at most, formula %.0f MiB (ratio %.2f): parameters %.0f, activations %.0f "
        "(arena %.0f), attention memory %.0f",
        seen[0], seen[1], seen[0] / seen[1], footprint.parameters * mib, footprint.activations * mib,
        (double)step->arenas.here.peak * mib, footprint.memory * mib);
}

static void print_products(const struct products *products) {
    double above = INFINITY;
    for (int64_t shown = 0; shown < 12; ++shown) { /* the largest by time, one after the other */
        const struct product *best = NULL;
        for (int64_t i = 0; i < products->count; ++i) {
            const struct product *p = &products->list[i];
            double seconds = p->seconds * (double)p->calls;
            if (seconds < above && (!best || seconds > best->seconds * (double)best->calls)) best = p;
        }
        if (!best) return;
        above = best->seconds * (double)best->calls;
        log_info("  %7.2f ms  %6lld x [%lld, %lld, %lld]%s%s%s  %.1f GFLOP/s", 1e3 * above, (long long)best->calls,
                 (long long)best->N, (long long)best->O, (long long)best->I, best->transpose_a ? " A^T" : "",
                 best->transpose_b ? " B^T" : "", best->parallel ? " in each thread" : "",
                 2e-9 * (double)(best->N * best->O * best->I) / best->seconds);
    }
}

static void measure(struct step *step, int64_t steps, double before) {
    const struct config *config = step->lm->config;
    int64_t n = step->rows * config->model.segment, warm = 0, tokens_all = config->train.batch * config->model.segment;
    int32_t *tokens = malloc((size_t)(n + 1) * sizeof *tokens), *targets = malloc((size_t)(n + 1) * sizeof *targets);
    double *seconds = malloc((size_t)steps * sizeof *seconds);
    struct products products = {0};
    if (!tokens || !targets || !seconds) FATAL("out of memory");
    do timed_step(step, warm++, tokens, targets);
    while (step->memory.length < step->memory.capacity);
    products_count_begin(&products);
    timed_step(step, warm++, tokens, targets);
    products_count_end(&products);
    for (int64_t i = 0; i < steps; ++i) {
        seconds[i] = timed_step(step, warm + i, tokens, targets);
        log_info("step %lld: %.3f s, %.0f tokens/s", (long long)i + 1, seconds[i], (double)tokens_all / seconds[i]);
    }
    print_memory(step, before);
    products_time(&products);
    qsort(seconds, (size_t)steps, sizeof *seconds, compare);
    double median = seconds[steps / 2], floor = products_seconds(&products),
           operations = products_operations(&products);
    comm_allreduce(step->lm->world, &floor, 1, COMM_DOUBLE, COMM_MAX);
    comm_allreduce(step->lm->world, &operations, 1, COMM_DOUBLE, COMM_SUM);
    log_info("products of rank 0 by time, each timed alone:");
    if (step->lm->world->rank == 0) print_products(&products);
    log_info("operations: %.1f MFLOP a token, in %lld products; matrix rate on the same shapes %.1f GFLOP/s",
             operations / (double)tokens_all / 1e6, (long long)products.count, operations / floor * 1e-9);
    log_info("floor: %.3f s a step (%.0f tokens/s); measured median %.3f s (%.0f tokens/s): %.1f%% of the floor", floor,
             (double)tokens_all / floor, median, (double)tokens_all / median, 100 * floor / median);
    double load = rank_load(step);
    log_info("rank load max/mean %.3f", load);
    products_free(&products);
    free(tokens);
    free(targets);
    free(seconds);
}

enum status cli_bench(const struct arguments *arguments, struct comm *world) {
    struct config config;
    struct lm lm = {0};
    enum status status = cli_configure(&config, arguments, world);
    if (status) return status;
    double before = resident("VmRSS:");
    status = comm_agree(world, lm_init(&lm, &config, SYMBOLS, world, true));
    if (!status) {
        struct step step;
        lm_start(&lm);
        step_init(&step, &lm);
        log_info("%d ranks, %lld rows of %lld symbols, memory %lld, %s", world->size, (long long)config.train.batch,
                 (long long)config.model.segment, (long long)config.model.memory, ops_library());
        measure(&step, arguments->steps, before);
        step_free(&step);
    }
    lm_free(&lm);
    return status;
}
