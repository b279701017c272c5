#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/environment.h"
#include "train/checkpoints.h"
#include "train/control.h"
#include "train/run_folder.h"
#include "train/trainer.h"

static bool is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* What --resume means: a checkpoint, the newest whole one of a run folder, or with `auto` of this one, if there is any.
 * *from: the path, or NULL. */
static enum status find_checkpoint(char path[CHECKPOINT_PATH], const char **from, const char *resume,
                                   const struct config *config, struct comm *world) {
    bool is_auto = resume && !strcmp(resume, "auto"), found = false;
    const char *folder = is_auto ? config->run.dir : resume;
    int64_t searched = is_auto || (resume && is_folder(resume));
    comm_broadcast(world, &searched, sizeof searched, 0);
    *from = resume;
    if (!searched) return STATUS_OK;
    TRY(checkpoints_newest(path, &found, folder, world));
    *from = found ? path : NULL;
    if (found || is_auto) return STATUS_OK;
    return comm_agree(world,
                      status_fail(STATUS_CHECKPOINT, "%s: expected a run folder with checkpoints, found none", folder));
}

static bool is_auto(const struct arguments *arguments) {
    return arguments->resume && !strcmp(arguments->resume, "auto");
}

/* Asked to stop before there is anything to save. */
static enum status go_on(struct comm *world) {
    if (!control_is_asked(world)) return STATUS_OK;
    log_info("asked to stop before the first step: nothing to save");
    return STATUS_REQUEUE;
}

static enum status train(const struct arguments *arguments, const struct config *config, struct comm *world) {
    char path[CHECKPOINT_PATH];
    const char *from = NULL;
    struct trainer trainer = {0};
    TRY(environment_write(config, arguments, world));
    TRY(find_checkpoint(path, &from, arguments->resume, config, world));
    TRY(go_on(world));
    enum status status = trainer_init(&trainer, config, world, from, from ? NULL : arguments->init_from);
    if (!status) status = trainer_run(&trainer, is_auto(arguments), NULL);
    trainer_free(&trainer);
    return status;
}

enum status cli_run(const struct config *config, const struct arguments *arguments, struct comm *world) {
    struct run_folder folder = {0};
    enum status status = run_folder_enter(&folder, config, world);
    if (!status) status = train(arguments, config, world);
    run_folder_leave(&folder);
    return status;
}

enum status cli_train(const struct arguments *arguments, struct comm *world) {
    struct config config;
    /* With `auto` a job may be started again by the line that it was begun with. */
    if (arguments->resume && arguments->init_from && !is_auto(arguments))
        return comm_agree(world, status_fail(STATUS_CONFIG, "train: expected one of --resume (the run goes on) and "
                                                            "--init-from (a new run), found both"));
    control_catch_signals();
    TRY(cli_configure(&config, arguments, world));
    return cli_run(&config, arguments, world);
}
