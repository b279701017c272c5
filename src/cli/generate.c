#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/input.h"
#include "train/checkpoint.h"
#include "train/generate.h"
#include "train/start.h"

/* All of rank 0's standard input, on every rank. Collective; the caller frees it. */
static char *read_prompt(struct comm *world) {
    struct input input = {0};
    while (!input.end) input_more(&input, world);
    int64_t bytes = (int64_t)input.size;
    comm_broadcast(world, &bytes, sizeof bytes, 0);
    char *text = world->rank == 0 ? input.bytes : malloc((size_t)bytes + 1);
    if (!text) FATAL("out of memory");
    if (bytes) comm_broadcast(world, text, bytes, 0);
    text[bytes] = '\0';
    return text;
}

enum status cli_generate(const struct arguments *arguments, struct comm *world) {
    struct config config;
    struct model model = {0};
    struct pass_memory arenas = {0};
    struct vocabulary vocabulary;
    int64_t step;
    const char *path = arguments->files[0];
    enum status status =
        checkpoint_read_config(path, world, &config, arguments->overrides, arguments->n_overrides, &vocabulary, &step);
    if (!status && config.model.kind != MODEL_LM)
        status = comm_agree(world, status_fail(STATUS_CHECKPOINT,
                                               "%s: expected a language model, found a classifier: "
                                               "vqmoe predict asks it",
                                               path));
    if (!status) status = start_operations(&config, world);
    if (!status) status = comm_agree(world, model_init(&model, &config, vocabulary.size, 0, world, false));
    if (!status) status = checkpoint_read_parameters(path, &model);
    char *typed = !status && !strcmp(arguments->prompt, "-") ? read_prompt(world) : NULL;
    if (!status) {
        struct generation generation = {
            .vocabulary = &vocabulary,
            .prompt = typed ? typed : arguments->prompt,
            .tokens = arguments->tokens,
            .sampling = {arguments->temperature, arguments->top_k, arguments->top_p},
            .seed = (uint64_t)arguments->seed,
            .step = step,
        };
        double rate = generate(&model, &generation, &arenas, stdout);
        log_info("(%lld symbols, %.1f a second)", (long long)arguments->tokens, rate);
    }
    free(typed);
    pass_memory_free(&arenas);
    model_free(&model);
    vocabulary_free(&vocabulary);
    return status;
}
