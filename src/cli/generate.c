#include <stdio.h>

#include "base/log.h"
#include "cli/cli.h"
#include "train/checkpoint.h"
#include "train/generate.h"
#include "train/start.h"

enum status cli_generate(const struct arguments *arguments, struct comm *world) {
    struct config config;
    struct model model = {0};
    struct pass_memory arenas = {0};
    uint8_t bytes[256];
    int64_t V, step;
    const char *path = arguments->files[0];
    enum status status =
        checkpoint_read_config(path, world, &config, arguments->overrides, arguments->n_overrides, bytes, &V, &step);
    if (!status) status = start_operations(&config, world);
    if (!status) status = comm_agree(world, model_init(&model, &config, V, 0, world, false));
    if (!status) status = checkpoint_read_parameters(path, &model);
    if (!status) {
        struct generation generation = {
            .byte_of = bytes,
            .prompt = arguments->prompt,
            .tokens = arguments->tokens,
            .temperature = arguments->temperature,
            .seed = (uint64_t)arguments->seed,
            .step = step,
        };
        double rate = generate(&model, &generation, &arenas, stdout);
        log_info("(%lld symbols, %.1f a second)", (long long)arguments->tokens, rate);
    }
    pass_memory_free(&arenas);
    model_free(&model);
    return status;
}
