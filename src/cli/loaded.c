#include "cli/loaded.h"

#include "base/log.h"
#include "train/checkpoint.h"
#include "train/start.h"

enum status loaded_open(struct loaded *loaded, const struct arguments *arguments, struct comm *world) {
    struct config *config = &loaded->config;
    const char *path = arguments->files[0];
    *loaded = (struct loaded){0};
    TRY(checkpoint_read_config(path, world, config, arguments->overrides, arguments->n_overrides, &loaded->vocabulary,
                               &loaded->step));
    if (config->model.kind != MODEL_LM)
        return comm_agree(world,
                          status_fail(STATUS_CHECKPOINT, "%s: expected a language model, found a classifier", path));
    enum status status;
    if ((status = start_operations(config, world))) return status;
    log_info("%s", start_description());
    status = text_open(&loaded->text, config);
    if (!status) status = text_take_vocabulary(&loaded->text, &loaded->vocabulary, path);
    if ((status = comm_agree(world, status))) return status;
    status = comm_agree(world, model_init(&loaded->model, config, loaded->vocabulary.size, 0, world, false));
    if (status) return status;
    return checkpoint_read_parameters(path, &loaded->model);
}

void loaded_free(struct loaded *loaded) {
    model_free(&loaded->model);
    text_close(&loaded->text);
    vocabulary_free(&loaded->vocabulary);
}
