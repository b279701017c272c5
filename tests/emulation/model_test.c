/* Whole models on the GPU (real or emulated) against the CPU: every router and quantizer, losses, every gradient, state
 * and parameters of a few steps with the CPU's routes; and the same bits when it is done again. On one rank or several:
 * test_model_emulated [bf16] */
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "moe/quantizer.h"
#include "moe/router.h"
#include "tests/kinds/toy.h"
#include "train/optimizer.h"

enum { RUN = 7 }; /* steps: past router.switch_step */

static struct comm *world;
static int failures;
static double tolerance_loss = 1e-4, tolerance = 1e-4, worst;

/* ---- Two devices in one process ---- */

static struct {
    const struct ops *ops;
    const struct device *device;
    const struct comm_plane *plane;
} cpu, gpu;

static void must(enum status status) {
    if (status) FATAL("%s", status_message());
}

static void start_devices(enum precision precision) {
    ops_init_cpu(1, precision);
    cpu.ops = ops, cpu.device = device;
    must(ops_init_cuda(world->rank, precision));
    comm_limit(60);
    if (world->size > 1) must(comm_use_nccl(world));
    gpu.ops = ops, gpu.device = device, gpu.plane = world->plane;
}

static void use_gpu(bool wanted) {
    ops = wanted ? gpu.ops : cpu.ops;
    device = wanted ? gpu.device : cpu.device;
    world->plane = wanted ? gpu.plane : NULL;
}

/* ---- What a run leaves, on the host ---- */

struct result {
    double losses[RUN];
    real *grads, *data; /* [RUN, trained]; [RUN + 1, total] before each step and at the end */
    uint64_t hashes[RUN];
};

static void result_free(struct result *result) {
    free(result->grads);
    free(result->data);
}

static real *copy_of(const real *at, int64_t n, real *to) {
    const real *view = device_view(at, (size_t)n * sizeof *at);
    memcpy(to, view, (size_t)n * sizeof *at);
    device_view_close(view, at);
    return to;
}

/* expected: the CPU's, whose routes and parameters are taken step by step, so that errors do not build up through
 * Adam; NULL: this is the CPU. */
static struct result run(struct toy *toy, struct history *history, const struct result *expected) {
    const struct params *params = &toy->model.params;
    size_t bytes = (size_t)params->total * sizeof(real);
    struct result result = {.grads = take_zeroed((size_t)(RUN * params->trained) * sizeof(real)),
                            .data = take_zeroed((RUN + 1) * bytes)};
    toy_start(toy);
    for (int64_t s = 0; s < RUN; ++s) {
        if (expected) device->upload(params->data, expected->data + s * params->total, bytes);
        copy_of(params->data, params->total, result.data + s * params->total);
        toy_gradients(toy, history, s, !expected);
        copy_of(params->grad, params->trained, result.grads + s * params->trained);
        optimizer_update(&toy->model, s);
        model_after_step(&toy->model, s);
        result.losses[s] = toy->step.stats.loss;
        result.hashes[s] = toy->step.stats.hashes[LAYERS - 1];
    }
    copy_of(params->data, params->total, result.data + RUN * params->total);
    return result;
}

static void fail(const char *variant, const char *what, double error) {
    printf("%s: rank %d: %s: %.3g\n", variant, world->rank, what, error);
    failures++;
}

/* Relative L2, of small arrays relative to a thousandth of the whole. */
static double error_of(const real *a, const real *b, int64_t n, double whole) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; ++i) {
        difference += pow((double)a[i] - (double)b[i], 2);
        norm += pow((double)b[i], 2);
    }
    return sqrt(difference) / fmax(fmax(sqrt(norm), 1e-3 * whole), 1e-30);
}

static void compare_arrays(const char *variant, const char *what, const struct params *params, bool state,
                           const real *found, const real *expected) {
    double squares = 0;
    for (int64_t i = 0; i < params->trained && !state; ++i) squares += pow((double)expected[i], 2);
    for (int i = 0; i < params->count; ++i) {
        const struct param *p = params->list[i];
        if ((p->placement == PLACE_STATE) != state) continue;
        double error = error_of(found + p->offset, expected + p->offset, p->size, sqrt(squares));
        char name[3 * PARAM_NAME];
        snprintf(name, sizeof name, "%s of %s", what, p->name);
        worst = fmax(worst, error);
        if (!(error <= tolerance)) fail(variant, name, error);
    }
}

static void compare(const char *variant, const struct params *params, const struct result *found,
                    const struct result *expected) {
    for (int s = 0; s < RUN; ++s) {
        double error = fabs(found->losses[s] - expected->losses[s]) / fabs(expected->losses[s]);
        char what[64];
        snprintf(what, sizeof what, "step %d: gradient", s);
        if (!(error <= tolerance_loss)) fail(variant, "loss", error);
        if (found->hashes[s] != expected->hashes[s]) fail(variant, "hash of the choices", s);
        compare_arrays(variant, what, params, false, found->grads + s * params->trained,
                       expected->grads + s * params->trained);
    }
    compare_arrays(variant, "at the end", params, true, found->data + RUN * params->total,
                   expected->data + RUN * params->total);
}

static void check(const struct variant *variant) {
    struct toy toy;
    struct history history = {0};
    use_gpu(false);
    enum status status = toy_init(&toy, variant, world);
    if (status) return; /* more ranks than experts and the like */
    struct result expected = run(&toy, &history, NULL);
    toy_free(&toy);
    use_gpu(true);
    must(toy_init(&toy, variant, world));
    struct result found = run(&toy, &history, &expected);
    compare(variant->name, &toy.model.params, &found, &expected);
    toy_free(&toy);
    must(toy_init(&toy, variant, world));
    struct result again = run(&toy, &history, &expected);
    if (memcmp(again.data, found.data, (size_t)((RUN + 1) * toy.model.params.total) * sizeof(real)))
        fail(variant->name, "other bits when it is done again", 1);
    toy_free(&toy);
    result_free(&expected);
    result_free(&found);
    result_free(&again);
    history_free(&history);
}

/* ---- Cases ---- */

static void check_list(void) {
    static const char *const more[][7] = {
        {"pre-norm, half the memory", "model.norm=pre", "model.memory=9"},
        {"absolute", "model.attention=absolute", "model.memory=0"},
        {"continuous, top 2 of 2, little room", "moe.mode=continuous", "router.kind=smoe", "router.top_k=2",
         "router.normalize=topk", "router.capacity=0.6"},
        {"two stages, parts", "router.two_stage=true", "train.accumulate=2", "router.capacity=1.1"},
        {"k from 1 to 3", "router.kind=smoe_dropout", "router.k_min=1", "router.k_max=3"},
        {"cluster, parts", "router.kind=cluster", "router.clusters=3", "train.accumulate=2", "router.tau=1"},
        {"dense", "moe.mode=continuous", "router.kind=dense", "router.dense_width=2"},
        {"discrete, experts on all ranks", "moe.mode=discrete", "quantizer.codes=9", "moe.share_norm=false",
         "parallel.expert=1"},
        {"full, cut, small turns", "parallel.vocabulary=true", "model.logits_mib=0.001"},
        {"adaptive, cut", "parallel.vocabulary=true", "model.softmax=adaptive", "model.cutoffs=2,5,10",
         "model.logits_mib=0.001"},
        {"adaptive, not tied", "model.tied=false", "model.softmax=adaptive", "model.cutoffs=3"},
        {"adaptive, not tied, cut, parts", "model.tied=false", "model.softmax=adaptive", "model.cutoffs=1,7",
         "parallel.vocabulary=true", "train.accumulate=2"},
        {"blend, a message per expert", "quantizer.straight_through=blend", "quantizer.contribution=0.3",
         "parallel.small_message=0"},
    };
    for (size_t i = 0; i < sizeof more / sizeof *more; ++i) {
        struct variant variant = variant_of(more[i][0]);
        for (int j = 1; j < 7 && more[i][j]; ++j) variant_set(&variant, "%s", more[i][j]);
        check(&variant);
    }
}

static void check_kinds(void) {
    for (int i = 0; i < router_n_kinds; ++i) {
        struct variant variant = variant_of(router_kinds[i]->name);
        variant_set(&variant, "router.kind=%s", router_kinds[i]->name);
        if (strcmp(router_kinds[i]->name, "dense") != 0) check(&variant);
    }
    for (int i = 0; i < quantizer_n_kinds; ++i) {
        struct variant variant = variant_of(quantizer_kinds[i]->name);
        variant_set(&variant, "quantizer.kind=%s", quantizer_kinds[i]->name);
        variant_set(&variant, "quantizer.codes=10");
        check(&variant);
    }
}

int main(int argc, char **argv) {
    bool bf16 = argc > 1 && !strcmp(argv[1], "bf16");
    const char *reason;
    MPI_Init(&argc, &argv);
    world = comm_mpi_new();
    log_init(world->rank);
    if (!ops_cuda_devices(&reason)) {
        if (world->rank == 0) printf("skipped: no GPU: %s\n", reason);
        comm_free(world);
        MPI_Finalize();
        return 77;
    }
    if (bf16) tolerance = 1e-2, tolerance_loss = 1e-3;
    start_devices(bf16 ? PRECISION_BF16 : PRECISION_FP32);
    check_kinds();
    check_list();
    int64_t total = failures;
    comm_allreduce(world, &total, 1, COMM_INT64, COMM_SUM);
    comm_allreduce(world, &worst, 1, COMM_DOUBLE, COMM_MAX);
    if (world->rank == 0)
        printf("models on %d ranks, %s: worst array %.2g, %lld failures\n", world->size, bf16 ? "bf16" : "fp32", worst,
               (long long)total);
    world->plane = gpu.plane;
    comm_free(world);
    MPI_Finalize();
    return total ? 1 : 0;
}
