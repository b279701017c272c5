#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "train/footprint.h"
#include "train/op_times.h"
#include "train/optimizer.h"
#include "train/step.h"

enum { SYMBOLS = 205 /* distinct bytes of enwik8 */, CLASSES = 2 };
static const double MIB = 1 << 20;

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

/* MiB that this rank holds; on a GPU what its processes hold together. */
static double held(void) {
    size_t left, total;
    if (device->is_host) return resident("VmRSS:");
    device->memory(&left, &total);
    return (double)(total - left) / MIB;
}

static void random_batch(const struct step *step, int64_t number, int32_t *tokens, int32_t *targets) {
    int64_t n = step->rows * step->model->config->model.segment;
    for (int64_t i = 0; i < n; ++i) {
        uint32_t words[4];
        rng_words(words, rng_place(1, number, RNG_SAMPLE, step->model->world->rank, 0), (uint32_t)i, 0);
        tokens[i] = (int32_t)(words[0] % SYMBOLS);
        targets[i] = (int32_t)(words[1] % SYMBOLS);
    }
}

static double timed_step(struct step *step, int64_t number, int32_t *tokens, int32_t *targets) {
    random_batch(step, number, tokens, targets);
    comm_barrier(step->model->world);
    double from = clock_seconds();
    step_gradients(step, number, NULL, tokens, targets);
    optimizer_update(step->model, number);
    model_after_step(step->model, number);
    device_finish_all();
    return clock_seconds() - from;
}

/* Max over mean of the rows that the ranks' experts had in the last step. */
static double rank_load(const struct step *step) {
    int64_t E = step->model->E, first = step->model->params.experts_first, count = step->model->params.experts_count;
    double here = 0, most, all;
    for (int64_t i = 0; i < step->model->layers; ++i)
        for (int64_t e = first; e < first + count && e < E; ++e) here += step->stats.load[i * E + e];
    most = all = here;
    comm_allreduce(step->model->group, &most, 1, COMM_DOUBLE, COMM_MAX);
    comm_allreduce(step->model->group, &all, 1, COMM_DOUBLE, COMM_SUM);
    return all > 0 ? most / all * step->model->group->size : 1;
}

/* What was there at most above what was before the model, against the formula. The largest over ranks, then rank 0's
 * parts. A GPU's memory is not given back while steps run: what is held is the most that was. */
static void print_memory(const struct step *step, double before) {
    struct footprint footprint = footprint_of(step);
    double formula = (footprint.parameters + footprint.activations + footprint.memory) / MIB;
    double seen[2] = {(device->is_host ? resident("VmHWM:") : held()) - before, formula};
    comm_allreduce(step->model->world, seen, 2, COMM_DOUBLE, COMM_MAX);
    log_info("memory of a rank above %s: %.0f MiB at most, formula %.0f MiB (ratio %.2f)",
             device->is_host ? "MPI" : "CUDA's own, of the device", seen[0], seen[1], seen[0] / seen[1]);
    log_info("  of rank 0: parameters %.0f, activations %.0f (arena %.0f), attention memory %.0f",
             footprint.parameters / MIB, footprint.activations / MIB, (double)step->arenas.here.peak / MIB,
             footprint.memory / MIB);
}

/* Something to time, larger and larger: three vectors and what is done with them. */
struct trial {
    int64_t size;
    real *data[3];
    int64_t reals[3];
};

static void copy_sizes(struct trial *t) {
    t->reals[0] = t->reals[1] = t->size;
    t->reals[2] = 0;
}

static void copy_run(const struct trial *t) { ops->copy(t->data[0], t->data[1], t->size); }

/* Where factors are rounded once for several products, as a GPU does, the rounding hardly counts. */
static int64_t products_at_once(void) { return device->is_host ? 1 : 4; }

static void product_sizes(struct trial *t) {
    t->reals[0] = products_at_once() * t->size * t->size;
    t->reals[1] = t->reals[2] = t->size * t->size;
}

static void product_run(const struct trial *t) {
    int64_t n = t->size;
    ops->gemm_batched(false, false, n, n, n, 1, t->data[1], n, 0, t->data[2], n, 0, 0, t->data[0], n, n * n,
                      products_at_once());
}

static void trial_give(struct trial *t) {
    for (int i = 0; i < 3; ++i)
        if (t->data[i]) device->release(t->data[i], (size_t)t->reals[i] * sizeof(real));
    memset(t->data, 0, sizeof t->data);
}

/* Not zeros, which are multiplied with less power and so faster. n: a power of two, at least 2^16. */
static void fill(real *data, int64_t n) {
    const int64_t rows = 64, width = 1024;
    ops->sinusoid(data, 0, 1, (struct dropout){0}, rows, width);
    for (int64_t done = rows * width; done < n; done *= 2) ops->copy(data + done, data, done);
}

/* False where memory is short; products take more than their operands. */
static bool trial_take(struct trial *t) {
    size_t left, total, bytes = 0;
    for (int i = 0; i < 3; ++i) bytes += (size_t)t->reals[i] * sizeof(real);
    device->memory(&left, &total);
    if (total && bytes > left / 2) return false;
    for (int i = 0; i < 3; ++i) {
        if (!t->reals[i]) continue;
        if (!(t->data[i] = device->allocate((size_t)t->reals[i] * sizeof(real)))) {
            trial_give(t);
            return false;
        }
        fill(t->data[i], t->reals[i]);
    }
    return true;
}

static double least_seconds(void (*run)(const struct trial *), const struct trial *t) {
    double least = INFINITY;
    for (int round = 0; round < 5; ++round) {
        struct device_mark from = device->stamp(QUEUE_COMPUTE);
        run(t);
        struct device_mark to = device->stamp(QUEUE_COMPUTE);
        device->finish(to);
        least = fmin(least, device->elapsed(from, to));
    }
    return least;
}

/* Seconds of the largest of sizes first, 2 first, ... most that fits, and does not take long; *size: which. */
static double trial_grow(int64_t *size, int64_t first, int64_t most, void (*sizes)(struct trial *),
                         void (*run)(const struct trial *)) {
    double seconds = 0;
    struct trial t = {0};
    for (t.size = first; t.size <= most && seconds < 0.1; t.size *= 2) {
        sizes(&t);
        if (!trial_take(&t)) break;
        seconds = least_seconds(run, &t);
        *size = t.size;
        trial_give(&t);
    }
    if (seconds == 0) FATAL("out of memory");
    return seconds;
}

struct rates {
    double copy, products; /* bytes read and written, operations; a second, on this rank */
    int64_t bytes, side;   /* of the vector copied, of the square matrices */
};

static struct rates rates_measure(struct comm *world) {
    struct rates rates = {0};
    int64_t mib = (1 << 20) / (int64_t)sizeof(real), reals = 0;
    comm_barrier(world);
    double seconds = trial_grow(&reals, mib, (device->is_host ? 256 : 1024) * mib, copy_sizes, copy_run);
    rates.bytes = reals * (int64_t)sizeof(real);
    rates.copy = 2 * (double)rates.bytes / seconds;
    comm_barrier(world);
    seconds = trial_grow(&rates.side, 256, device->is_host ? 1024 : 8192, product_sizes, product_run);
    rates.products = 2 * pow((double)rates.side, 3) * (double)products_at_once() / seconds;
    return rates;
}

static int slower(const void *a, const void *b) {
    const struct op_time *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

static void print_op(const struct op_time *op, double step, const struct rates *rates) {
    char products[64] = "";
    double rate = op->operations / op->seconds;
    if (op->operations > 0)
        snprintf(products, sizeof products, " %10.4f %9.3f %6.1f%%", op->operations * 1e-9, rate * 1e-12,
                 100 * rate / rates->products);
    log_info("  %-23s %6lld %9.3f %6.1f%% %9.4f %8.1f %6.1f%%%s", op->name, (long long)op->calls, 1e3 * op->seconds,
             100 * op->seconds / step, op->bytes * 1e-9, op->bytes / op->seconds * 1e-9,
             100 * op->bytes / op->seconds / rates->copy, products);
}

/* step: seconds of the step that the times were taken in. */
static void print_ops(const struct op_times *times, double step, const struct rates *rates) {
    struct op_time order[OP_TIMES], sum = op_times_sum(times);
    memcpy(order, times->op, sizeof order);
    qsort(order, OP_TIMES, sizeof *order, slower);
    log_info("rates of rank 0: copy %.1f GB/s (%lld MiB read and written), products %.3f TFLOP/s (%lld^3)",
             rates->copy * 1e-9, (long long)rates->bytes >> 20, rates->products * 1e-12, (long long)rates->side);
    log_info("operations of rank 0 in one step of %.3f ms; GB and GFLOP are the least that there can be:", 1e3 * step);
    log_info("  %-23s %6s %9s %7s %9s %8s %7s %10s %9s %7s", "", "calls", "ms", "share", "GB", "GB/s", "of copy",
             "GFLOP", "TFLOP/s", "of rate");
    for (int i = 0; i < OP_TIMES; ++i)
        if (order[i].calls) print_op(&order[i], step, rates);
    print_op(&sum, step, rates);
    log_info("  %-23s %6s %9.3f %6.1f%%  gaps, copies to and from the host, exchange", "rest", "",
             1e3 * (step - sum.seconds), 100 * (1 - sum.seconds / step));
}

/* What the maker says of a card: dense products and memory, a second. */
static const struct card {
    const char *name; /* part of it */
    double fp32, bf16, copy;
} cards[] = {{"H100 80GB HBM3", 67e12, 989e12, 3.35e12}};

static void print_whole(const struct config *config, const struct comm *world, double rate, double products,
                        const struct rates *rates) {
    log_info("whole step: %.3f TFLOP/s on all ranks, %.1f%% of the measured rate of products", rate * 1e-12,
             100 * rate / products);
    for (size_t i = 0; i < sizeof cards / sizeof *cards; ++i) {
        if (!strstr(ops_cuda_description(), cards[i].name) || config->parallel.share_gpus) continue;
        double card = config->precision == PRECISION_KIND_BF16 ? cards[i].bf16 : cards[i].fp32;
        log_info("  %.1f%% of the card's nominal %.0f TFLOP/s; copy %.1f%% of its nominal %.2f TB/s",
                 100 * rate / card / world->size, card * 1e-12, 100 * rates->copy / cards[i].copy,
                 cards[i].copy * 1e-12);
    }
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

/* On the CPU the same products timed alone say how fast a step could be. */
static void print_floor(struct op_times *times, struct comm *world, double tokens, double operations, double median) {
    struct products *products = &times->products;
    if (!device->is_host) {
        log_info("operations: %.3f MFLOP a token, in %lld shapes of products", operations / tokens / 1e6,
                 (long long)products->count);
        log_info("measured median %.4f s (%.0f tokens/s)", median, tokens / median);
        return;
    }
    products_time(products);
    double floor = products_seconds(products);
    comm_allreduce(world, &floor, 1, COMM_DOUBLE, COMM_MAX);
    log_info("products of rank 0 by time, each timed alone:");
    if (world->rank == 0) print_products(products);
    log_info("operations: %.3f MFLOP a token, in %lld products; matrix rate on the same shapes %.1f GFLOP/s",
             operations / tokens / 1e6, (long long)products->count, operations / floor * 1e-9);
    log_info("floor: %.3f s a step (%.0f tokens/s); measured median %.3f s (%.0f tokens/s): %.1f%% of the floor", floor,
             tokens / floor, median, tokens / median, 100 * floor / median);
}

static void measure(struct step *step, int64_t steps, double before) {
    const struct config *config = step->model->config;
    struct comm *world = step->model->world;
    int64_t n = step->rows * config->model.segment, warm = 0;
    double tokens_all = (double)(config->train.batch * config->model.segment);
    int32_t *tokens = malloc((size_t)(n + 1) * sizeof *tokens), *targets = malloc((size_t)(n + 1) * sizeof *targets);
    double *seconds = malloc((size_t)steps * sizeof *seconds);
    struct op_times times;
    if (!tokens || !targets || !seconds) FATAL("out of memory");
    do timed_step(step, warm++, tokens, targets);
    while (step->memory.length < step->memory.capacity || warm < 2);
    for (int64_t i = 0; i < steps; ++i) {
        seconds[i] = timed_step(step, warm + i, tokens, targets);
        log_info("step %lld: %.4f s, %.0f tokens/s", (long long)i + 1, seconds[i], tokens_all / seconds[i]);
    }
    op_times_begin(&times);
    double timed = timed_step(step, warm + steps, tokens, targets);
    op_times_end(&times);
    print_memory(step, before);
    qsort(seconds, (size_t)steps, sizeof *seconds, compare);
    double median = seconds[steps / 2], operations = op_times_sum(&times).operations;
    comm_allreduce(world, &operations, 1, COMM_DOUBLE, COMM_SUM);
    struct rates rates = rates_measure(world);
    double products = rates.products;
    comm_allreduce(world, &products, 1, COMM_DOUBLE, COMM_SUM);
    print_ops(&times, timed, &rates);
    print_floor(&times, world, tokens_all, operations, median);
    print_whole(config, world, operations / median, products, &rates);
    double load = rank_load(step);
    log_info("rank load max/mean %.3f", load);
    op_times_free(&times);
    free(tokens);
    free(targets);
    free(seconds);
}

enum status cli_bench(const struct arguments *arguments, struct comm *world) {
    struct config config;
    struct model model = {0};
    enum status status = cli_configure(&config, arguments, world);
    if (status) return status;
    double before = held();
    bool classifier = config.model.kind == MODEL_CLASSIFIER;
    status =
        comm_agree(world, model_init(&model, &config, SYMBOLS + classifier, classifier ? CLASSES : 0, world, true));
    if (!status) {
        struct step step;
        model_start(&model);
        step_init(&step, &model);
        log_info("%d ranks, %lld rows of %lld symbols, %d different ones, memory %lld", world->size,
                 (long long)config.train.batch, (long long)config.model.segment, SYMBOLS,
                 (long long)config.model.memory);
        if (arguments->checkpoint)
            status = bench_checkpoint(&step, arguments->checkpoint);
        else if (classifier)
            bench_texts(&step, arguments->steps);
        else
            measure(&step, arguments->steps, before);
        step_free(&step);
    }
    model_free(&model);
    return status;
}
