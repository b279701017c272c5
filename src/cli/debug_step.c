#include "base/log.h"
#include "cli/cli.h"
#include "train/step_file.h"
#include "train/trainer.h"

enum status cli_debug_step(const struct arguments *arguments, struct comm *world) {
    struct config config;
    struct trainer trainer = {0};
    enum status status = cli_configure(&config, arguments, world);
    if (!status) status = trainer_init(&trainer, &config, world, arguments->resume, NULL);
    if (!status) {
        task_read(&trainer.task, &trainer.step);
        const struct task *task = &trainer.task;
        status =
            task->classes
                ? step_file_write_batch(arguments->out, &trainer.step, trainer.progress.step, &task->batch.batch)
                : step_file_write(arguments->out, &trainer.step, trainer.progress.step, task->tokens, task->targets);
    }
    if (!status)
        log_info("%s: step %lld, loss %.6f nats", arguments->out, (long long)trainer.progress.step,
                 trainer.step.stats.loss);
    trainer_free(&trainer);
    return status;
}
