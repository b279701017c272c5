#include "cli/cli.h"
#include "train/trainer.h"

enum status cli_train(const struct arguments *arguments, struct comm *world) {
    struct config config;
    struct trainer trainer = {0};
    enum status status = cli_configure(&config, arguments, world);
    if (!status) status = trainer_init(&trainer, &config, world, arguments->resume);
    if (!status) status = trainer_run(&trainer, NULL);
    trainer_free(&trainer);
    return status;
}
