#include "cli/cli.h"
#include "train/trainer.h"

enum status cli_train(const struct arguments *arguments, struct comm *world) {
    struct config config;
    struct trainer trainer = {0};
    if (arguments->resume && arguments->init_from)
        return comm_agree(world, status_fail(STATUS_CONFIG, "train: expected one of --resume (the run goes on) and "
                                                            "--init-from (a new run), found both"));
    enum status status = cli_configure(&config, arguments, world);
    if (!status) status = trainer_init(&trainer, &config, world, arguments->resume, arguments->init_from);
    if (!status) status = trainer_run(&trainer, NULL);
    trainer_free(&trainer);
    return status;
}
