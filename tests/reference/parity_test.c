/* Every fixture of the independent reference (reference.py) against this implementation: losses, logits, choices,
 * memory and EVERY gradient. Relative L2 error per array, absolute where the reference is zero. Usage: test_parity
 * FOLDER */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "train/checkpoint.h"
#include "train/step_file.h"

static const double tolerance = sizeof(real) == sizeof(double) ? 1e-9 : 1e-4;
static const enum h5_type real_type = sizeof(real) == sizeof(double) ? H5T_FLOAT64 : H5T_FLOAT32;
static double errors[4096]; /* of all arrays, for the median */
static int n_errors, failures;

static int compare_double(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void must(enum status status) {
    if (status) FATAL("%s", status_message());
}

static void judge(const char *file, const char *name, const real *found, const real *expected, int64_t n) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; ++i) {
        difference += pow((double)found[i] - (double)expected[i], 2);
        norm += pow((double)expected[i], 2);
    }
    double error = norm > 0 ? sqrt(difference / norm) : sqrt(difference);
    if (n_errors < 4096) errors[n_errors++] = error;
    if (error <= tolerance) return;
    printf("%s: %s: relative error %.3g\n", file, name, error);
    failures++;
}

/* Reads a whole array of the file that must have this many elements. */
static real *expected_array(struct archive *file, const char *name, int64_t elements) {
    const struct h5_array *there = archive_find(file, name);
    int64_t count = 1;
    if (!there) FATAL("%s is missing", name);
    for (int i = 0; i < there->rank; ++i) count *= there->shape[i];
    if (count != elements) FATAL("%s: expected %lld elements, found %lld", name, (long long)elements, (long long)count);
    real *values = malloc((size_t)(count + 1) * sizeof *values);
    must(archive_read(file, name, real_type, there->rank, there->shape, 0, there->shape[0], values));
    return values;
}

static void compare_array(struct archive *file, const char *path, const char *name, const real *found, int64_t n) {
    real *expected = expected_array(file, name, n);
    judge(path, name, found, expected, n);
    free(expected);
}

static void compare_loss(struct archive *file, const char *path, const char *name, double found) {
    double expected;
    must(archive_read_real(file, name, &expected));
    real a = (real)found, b = (real)expected;
    judge(path, name, &a, &b, 1);
}

/* All of an array of integers; their number too. */
static int32_t *read_integers(struct archive *file, const char *name, int64_t *n) {
    const struct h5_array *there = archive_find(file, name);
    if (!there) FATAL("%s is missing", name);
    *n = 1;
    for (int i = 0; i < there->rank; ++i) *n *= there->shape[i];
    int64_t *wide = malloc((size_t)(*n + 1) * sizeof *wide);
    int32_t *integers = malloc((size_t)(*n + 1) * sizeof *integers);
    must(archive_read(file, name, H5T_INT64, there->rank, there->shape, 0, there->shape[0], wide));
    for (int64_t i = 0; i < *n; ++i) integers[i] = (int32_t)wide[i];
    free(wide);
    return integers;
}

static void compare_routes(struct archive *file, const char *path, const struct routes *routes, const struct step *step,
                           int64_t number, int64_t N) {
    static const char *const names[] = {"experts", "codes"};
    for (int p = 0; p < ROUTE_PATHS; ++p)
        for (int64_t i = 0; routes->choices[p] && i < step->model->layers; ++i) {
            char name[64];
            int64_t K = p == ROUTE_EXPERTS ? router_choices(&step->model->blocks[0].moe.router, number) : 1,
                    different = 0;
            snprintf(name, sizeof name, "/routes/%lld/%s", (long long)i, names[p]);
            int64_t *wide = malloc((size_t)(N * K) * sizeof *wide);
            const struct h5_array *there = archive_find(file, name);
            if (!there) FATAL("%s is missing", name);
            must(archive_read(file, name, H5T_INT64, there->rank, (int64_t[]){N, K}, 0, N, wide));
            for (int64_t n = 0; n < N * K; ++n) different += wide[n] != routes->choices[p][i][n];
            if (different) {
                printf("%s: %s: %lld choices differ\n", path, name, (long long)different);
                failures++;
            }
            free(wide);
        }
}

static void compare_memory(struct archive *file, const char *path, const struct memory *m) {
    for (int64_t i = 0; i < m->layers && m->length; ++i) {
        char name[64];
        real *packed = malloc((size_t)(m->rows * m->length * m->d_model) * sizeof *packed);
        for (int64_t b = 0; b < m->rows; ++b)
            device->download(packed + b * m->length * m->d_model,
                             m->data + (i * m->rows + b) * m->capacity * m->d_model,
                             (size_t)(m->length * m->d_model) * sizeof *packed);
        snprintf(name, sizeof name, "/memory_after/%lld", (long long)i);
        compare_array(file, path, name, packed, m->rows * m->length * m->d_model);
        free(packed);
    }
}

static int count_arrays(struct archive *file, const char *group) {
    const struct h5_contents *contents = archive_contents(file);
    int inside = 0;
    for (int i = 0; i < contents->n_arrays; ++i) {
        const char *name = contents->arrays[i].name;
        inside += !strncmp(name, group, strlen(group)) && name[strlen(group)] == '/';
    }
    return inside;
}

/* Every gradient, or what the step's own updates leave: all state, and what else the reference says they move. */
static void compare_group(struct archive *file, const char *path, const char *group, const struct params *params,
                          bool state) {
    int compared = 0, there = count_arrays(file, group);
    for (int i = 0; i < params->count; ++i) {
        const struct param *p = params->list[i];
        char name[H5_MAX_NAME];
        snprintf(name, sizeof name, "%s/%s", group, p->name);
        if (state ? !archive_find(file, name) && p->placement != PLACE_STATE : p->placement == PLACE_STATE) continue;
        const real *at = state ? p->data : p->grad, *values = device_view(at, (size_t)p->size * sizeof *at);
        compare_array(file, path, name, values, p->size);
        device_view_close(values, at);
        compared++;
    }
    if (compared == there) return;
    printf("%s: %s: %d arrays, the model has %d\n", path, group, there, compared);
    failures++;
}

/* A row for each symbol, and one for each tail. */
static int64_t vocabulary_of(struct archive *file) {
    const struct h5_contents *contents = archive_contents(file);
    int64_t V = 0;
    for (int i = 0; i < contents->n_arrays; ++i) {
        const struct h5_array *array = &contents->arrays[i];
        if (!strncmp(array->name, "/parameters/embedding.", 22)) V += array->shape[0] - !!strstr(array->name, ".tail_");
    }
    return V;
}

/* The step itself: fills routes, compares logits; returns the tokens. */
static int64_t run_language_step(struct archive *file, const char *path, struct step *step, int64_t number,
                                 struct routes *routes) {
    int64_t N;
    int32_t *tokens = read_integers(file, "/tokens", &N), *targets = read_integers(file, "/targets", &N);
    int64_t logits = N * step->model->V;
    step->keep_logits = malloc((size_t)logits * sizeof(real));
    step_gradients(step, number, routes, tokens, targets);
    compare_array(file, path, "/logits", step->keep_logits, logits);
    compare_memory(file, path, &step->memory);
    free(step->keep_logits);
    free(tokens);
    free(targets);
    return N;
}

static int64_t run_classifier_step(struct archive *file, const char *path, struct step *step, int64_t number,
                                   struct routes *routes) {
    int64_t rows, N, classes = step->model->head.classes;
    int32_t *lengths = read_integers(file, "/lengths", &rows), *labels = read_integers(file, "/labels", &rows),
            *tokens = read_integers(file, "/tokens", &N);
    real *weights = expected_array(file, "/class_weights", classes);
    double *wide = malloc((size_t)classes * sizeof *wide);
    for (int64_t c = 0; c < classes; ++c) wide[c] = (double)weights[c];
    struct batch batch = {rows, lengths, tokens, labels, wide};
    step_queue_batch(step, number, routes, &batch);
    step_collect(step);
    compare_array(file, path, "/logits", step->class_logits, rows * classes);
    free(lengths);
    free(labels);
    free(tokens);
    free(weights);
    free(wide);
    return N;
}

static void check_file(const char *path) {
    struct archive *file;
    struct config config;
    struct model model;
    struct step step;
    const char *json;
    int64_t number, seed;
    must(archive_open(&file, path, NULL));
    must(archive_read_text(file, "configuration", &json));
    must(config_load_json(&config, json, path, NULL, 0));
    must(archive_read_int(file, "step", &number));
    must(archive_read_int(file, "seed", &seed));
    config.run.seed = seed;
    const struct h5_array *head = archive_find(file, "/parameters/head.output.weight");
    struct comm *world = comm_self_new();
    must(model_init(&model, &config, vocabulary_of(file), head ? head->shape[0] : 0, world, true));
    step_init(&step, &model);
    must(checkpoint_read_arrays(file, "/parameters", &model.params, false, model.params.data));
    must(checkpoint_read_arrays(file, "/state", &model.params, true, model.params.data));
    must(checkpoint_read_memory(file, "/memory", &step));
    struct routes routes = {0};
    routes_allocate(&routes, &step);
    int64_t N = (head ? run_classifier_step : run_language_step)(file, path, &step, number, &routes);
    compare_loss(file, path, "loss", step.stats.loss);
    compare_loss(file, path, "task_loss", step.stats.task);
    compare_loss(file, path, "vq_loss", step.stats.vq);
    compare_loss(file, path, "balance_loss", step.stats.balance);
    compare_loss(file, path, "distill_loss", step.stats.distill);
    compare_group(file, path, "/gradients", &model.params, false);
    compare_routes(file, path, &routes, &step, number, N);
    model_after_step(&model, number);
    compare_group(file, path, "/after", &model.params, true);

    routes_free(&routes, &step);
    step_free(&step);
    model_free(&model);
    comm_free(world);
    archive_close(file);
}

int main(int argc, char **argv) {
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    if (!folder) FATAL("usage: test_parity FOLDER");
    ops_init_cpu(2, PRECISION_FP32);
#ifdef ON_CUDA
    const char *reason;
    if (!ops_cuda_devices(&reason)) {
        printf("skipped: no GPU: %s\n", reason);
        return 77;
    }
    must(ops_init_cuda(0, PRECISION_FP32));
#endif
    int files = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[1024];
        if (!strstr(entry->d_name, ".h5")) continue;
        snprintf(path, sizeof path, "%s/%s", argv[1], entry->d_name);
        int before = failures;
        check_file(path);
        printf("%s %s\n", failures == before ? "same  " : "DIFFERS", entry->d_name);
        files++;
    }
    closedir(folder);
    qsort(errors, (size_t)n_errors, sizeof *errors, compare_double);
    printf("%d files, %d arrays in " REAL_NAME ": median error %.2g, largest %.2g, %d beyond %.0e\n", files, n_errors,
           n_errors ? errors[n_errors / 2] : 0, n_errors ? errors[n_errors - 1] : 0, failures, tolerance);
    return failures || !files;
}
