#include <stdio.h>

#include "base/log.h"
#include "cli/cli.h"
#include "train/checkpoint.h"
#include "train/generate.h"
#include "train/start.h"

/* Of rank 0's standard input, all of it. Collective; the caller frees it. */
static char *read_prompt(struct comm *world) {
    char *text = NULL;
    size_t room = 0;
    ssize_t length = world->rank == 0 ? getdelim(&text, &room, '\0', stdin) : 0;
    int64_t bytes = length > 0 ? length : 0;
    comm_broadcast(world, &bytes, sizeof bytes, 0);
    text = realloc(text, (size_t)bytes + 1);
    if (!text) FATAL("out of memory");
    if (bytes) comm_broadcast(world, text, bytes, 0);
    text[bytes] = '\0';
    return text;
}

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
