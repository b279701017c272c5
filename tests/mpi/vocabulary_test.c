/* Memory of a rank with a large vocabulary, whole and cut over the ranks: what parameters and activations take against
 * the formula (footprint.h), and what the system counts. Usage: test_vocabulary [V [KEY=VALUE...]] */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "train/footprint.h"
#include "train/optimizer.h"

enum { SETTINGS = 64 };
static struct comm *world;
static int failures;

static double anonymous_mib(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long long kib = 0;
    while (file && fgets(line, sizeof line, file)) sscanf(line, "RssAnon: %lld", &kib);
    if (file) fclose(file);
    return (double)kib / 1024;
}

static void must(enum status status) {
    if (status) FATAL("%s", status_message());
}

/* Two steps; the largest figures of any rank. */
static void measure(const char *name, const char *const *settings, int n, int64_t V) {
    struct config config;
    struct model model;
    struct step step;
    double before = anonymous_mib();
    must(config_load(&config, NULL, 0, settings, n));
    must(model_init(&model, &config, V, 0, world, true));
    model_start(&model);
    step_init(&step, &model);
    int32_t *tokens = calloc((size_t)(step.rows * config.model.segment + 1), sizeof *tokens);
    if (!tokens) FATAL("out of memory");
    for (int64_t i = 0; i < step.rows * config.model.segment; ++i)
        tokens[i] = (int32_t)((i + 7 * world->rank) * 7919 % V);
    for (int64_t s = 0; s < 2; ++s) {
        step_gradients(&step, s, NULL, tokens, tokens);
        optimizer_update(&model, s);
    }
    struct footprint formula = footprint_of(&step);
    double taken[] = {4.0 * sizeof(real) * (double)model.params.total, (double)step.arenas.here.peak,
                      (anonymous_mib() - before) * 0x1p20, formula.parameters, formula.activations};
    double ratio = taken[1] / formula.activations;
    if (ratio < 0.8 || ratio > 1.2) {
        printf("%s: rank %d: activations are %.3f of the formula\n", name, world->rank, ratio);
        failures++;
    }
    comm_allreduce(world, taken, 5, COMM_DOUBLE, COMM_MAX);
    for (int i = 0; i < 5; ++i) taken[i] /= 0x1p20;
    if (world->rank == 0)
        printf(
            "%s, V %lld, %d ranks: parameters %.1f, activations %.1f MiB (formula %.1f), RssAnon %.1f (formula %.1f)\n",
            name, (long long)V, world->size, taken[0], taken[1], taken[4], taken[2], taken[3] + taken[4]);
    free(tokens);
    step_free(&step);
    model_free(&model);
}

int main(int argc, char **argv) {
    const char *settings[SETTINGS] = {"model.layers=1",   "model.d_model=64",   "model.heads=2",     "model.d_head=32",
                                      "model.d_inner=64", "moe.experts=4",      "model.segment=64",  "model.memory=64",
                                      "train.batch=8",    "model.logits_mib=4", "parallel.threads=1"};
    int n = 11;
    MPI_Init(&argc, &argv);
    world = comm_mpi_new();
    log_init(world->rank);
    ops_init_cpu(1, PRECISION_FP32);
    int64_t V = argc > 1 ? atoll(argv[1]) : 20011;
    for (int i = 2; i < argc && n < SETTINGS - 1; ++i) settings[n++] = argv[i];
    settings[n] = "parallel.vocabulary=true";
    measure("cut", settings, n + 1, V);
    measure("whole", settings, n, V);
    int64_t total = failures;
    comm_allreduce(world, &total, 1, COMM_INT64, COMM_SUM);
    comm_free(world);
    MPI_Finalize();
    return total ? 1 : 0;
}
