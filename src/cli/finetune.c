#include <stdlib.h>

#include "base/log.h"
#include "cli/cli.h"
#include "train/checkpoint.h"
#include "train/control.h"
#include "train/run_folder.h"

/* The model's keys are the checkpoint's, unless the configuration says otherwise. */
static enum status configure(struct config *config, const struct arguments *arguments, struct comm *world) {
    char *json;
    TRY(checkpoint_read_json(arguments->init_from, world, &json));
    enum status status = config_load_finetune(config, json, arguments->init_from, arguments->files, arguments->n_files,
                                              arguments->overrides, arguments->n_overrides);
    free(json);
    if ((status = comm_agree(world, status))) return status;
    return cli_start(config, world);
}

enum status cli_finetune(const struct arguments *arguments, struct comm *world) {
    struct config config;
    if (!arguments->init_from)
        return comm_agree(world,
                          status_fail(STATUS_CONFIG, "finetune: expected --init-from CHECKPOINT, the pre-trained "
                                                     "model, found none"));
    control_catch_signals();
    TRY(configure(&config, arguments, world));
    return cli_run(&config, arguments, world);
}
