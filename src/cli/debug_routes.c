#include <stdio.h>

#include "base/log.h"
#include "cli/cli.h"
#include "train/run_folder.h"
#include "train/step_file.h"
#include "train/trainer.h"

struct recorder {
    struct observer base;
    struct snapshot *record; /* one of the two */
    struct archive *replay;
};

static enum status before(struct observer *observer, const struct step *step, int64_t number) {
    struct recorder *recorder = (struct recorder *)observer;
    char group[H5_MAX_NAME];
    snprintf(group, sizeof group, "/routes/%lld", (long long)number);
    if (!recorder->replay) return STATUS_OK;
    return comm_agree(step->model->world, routes_read(recorder->replay, group, observer->routes, step, number));
}

static enum status after(struct observer *observer, const struct step *step, int64_t number) {
    struct recorder *recorder = (struct recorder *)observer;
    char group[H5_MAX_NAME];
    snprintf(group, sizeof group, "/routes/%lld", (long long)number);
    if (recorder->record) routes_put(recorder->record, group, observer->routes, step, number);
    return STATUS_OK;
}

static void report_flips(struct comm *world, const struct routes *routes) {
    int64_t flips = routes->flips;
    double widest = routes->widest;
    comm_allreduce(world, &flips, 1, COMM_INT64, COMM_SUM);
    comm_allreduce(world, &widest, 1, COMM_DOUBLE, COMM_MAX);
    log_info("replayed: %lld choices differ from the model's own, the widest by %.3g of its score", (long long)flips,
             widest);
}

static enum status run(struct trainer *trainer, const struct arguments *arguments, struct comm *world) {
    struct routes routes = {.replay = arguments->replay != NULL};
    struct recorder recorder = {.base = {&routes, before, after}};
    enum status status = STATUS_OK;
    if (routes.replay)
        status = archive_open(&recorder.replay, arguments->replay, world);
    else
        recorder.record = snapshot_new(world);
    if (status) return status;
    routes_allocate(&routes, &trainer->step);
    status = trainer_run(trainer, false, &recorder.base);
    if (!status && routes.replay) report_flips(world, &routes);
    if (!status && recorder.record) status = snapshot_write(recorder.record, arguments->record);
    routes_free(&routes, &trainer->step);
    archive_close(recorder.replay);
    snapshot_free(recorder.record);
    return status;
}

enum status cli_debug_routes(const struct arguments *arguments, struct comm *world) {
    struct config config;
    struct trainer trainer = {0};
    struct run_folder folder = {0};
    if (!arguments->record == !arguments->replay)
        return comm_agree(world,
                          status_fail(STATUS_CONFIG, "debug routes: expected one of --record FILE and --replay FILE"));
    enum status status = cli_configure(&config, arguments, world);
    if (!status && config.model.kind != MODEL_LM)
        status = comm_agree(world, status_fail(STATUS_CONFIG, "model.kind: expected lm, found classifier"));
    if (!status) status = run_folder_enter(&folder, &config, world);
    if (!status) status = trainer_init(&trainer, &config, world, arguments->resume, NULL);
    if (!status) status = run(&trainer, arguments, world);
    trainer_free(&trainer);
    run_folder_leave(&folder);
    return status;
}
