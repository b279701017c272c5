#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/loaded.h"
#include "data/noise.h"
#include "train/evaluate.h"

static enum status find_split(const char *name, enum split *split) {
    for (int i = 0; i < SPLITS; ++i)
        if (!strcmp(split_names[i], name)) {
            *split = (enum split)i;
            return STATUS_OK;
        }
    return status_fail(STATUS_CONFIG, "--split: expected train, valid or test, found '%s'", name);
}

static enum status run(struct loaded *loaded, enum split split, const struct arguments *arguments) {
    struct pass_memory arenas = {0};
    struct evaluation result;
    char noise[64] = "";
    if (arguments->noise > 0)
        snprintf(noise, sizeof noise, ", noise %g (seed %lld)", arguments->noise, (long long)arguments->seed);
    enum status status = evaluate(&result, &loaded->model, &loaded->text, split, loaded->step, &arenas, NULL);
    if (!status)
        log_info("%s: loss %.6f nats, %.4f bpc, perplexity %.3f, %lld tokens, after step %lld%s", split_names[split],
                 result.loss, result.loss / M_LN2, exp(result.loss), (long long)result.tokens, (long long)loaded->step,
                 noise);
    if (!status && !isfinite(result.loss))
        status =
            comm_agree(loaded->model.world, status_fail(STATUS_NOT_FINITE, "%s: expected a finite loss, found %g nats",
                                                        arguments->files[0], result.loss));
    pass_memory_free(&arenas);
    return status;
}

enum status cli_eval(const struct arguments *arguments, struct comm *world) {
    struct loaded loaded = {0};
    enum split split = SPLIT_TEST;
    enum status status = comm_agree(world, find_split(arguments->split, &split));
    if (!status) status = loaded_open(&loaded, arguments, world);
    if (!status && arguments->noise > 0)
        status = comm_agree(world, noise_split(&loaded.text, split, arguments->noise, arguments->seed));
    if (!status) status = run(&loaded, split, arguments);
    loaded_free(&loaded);
    return status;
}
