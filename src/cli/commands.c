#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "train/start.h"

const struct command cli_commands[] = {
    {"train", "CONFIG...", "Trains a model: evaluates, writes checkpoints and metrics.jsonl into run.dir.",
     TAKES_RESUME | TAKES_INIT | TAKES_PRINT_CONFIG | TAKES_KEYS, cli_train},
    {"finetune", "CONFIG...",
     "Trains a classifier of texts from a pre-trained language model: the discrete path alone.",
     TAKES_RESUME | TAKES_INIT | TAKES_KEYS, cli_finetune},
    {"predict", "CHECKPOINT", "The class of each line of standard input, and its probability, behind a tab.", 0,
     cli_predict},
    {"eval", "CHECKPOINT", "Prints the figures of a checkpoint over a split.", TAKES_SPLIT | TAKES_NOISE, cli_eval},
    {"generate", "CHECKPOINT", "Continues a prompt.", TAKES_GENERATION, cli_generate},
    {"inspect", "CHECKPOINT|RUN_FOLDER",
     "Lists what a checkpoint holds: names, shapes, placement, step, configuration; or how routing is and became.",
     TAKES_COMPARE | TAKES_ROUTING | TAKES_VERIFY, cli_inspect},
    {"data prepare", "CONFIG...",
     "Encodes the texts of a configuration into the folder data.prepared (docs/data.md); again, it goes on.", 0,
     cli_data_prepare},
    {"data describe", "CONFIG...|FOLDER", "Describes data: files, vocabulary, splits, first lines, streams.",
     TAKES_VERIFY, cli_data_describe},
    {"bench", "CONFIG...", "Times training steps and their operations, on the CPU or a GPU, against measured rates.",
     TAKES_STEPS, cli_bench},
    {"doctor", "", "Looks for what would keep a run from its best on these ranks, their nodes and a folder.",
     TAKES_FOLDER, cli_doctor},
    {"debug step", "CONFIG...",
     "One training step into a step file: tokens, loss, logits and every gradient (docs/step-file.md).",
     TAKES_RESUME | TAKES_OUT, cli_debug_step},
    {"debug routes", "CONFIG...",
     "Trains while recording the chosen experts and codes, or replaying those of another run.",
     TAKES_RESUME | TAKES_ROUTES, cli_debug_routes},
    {0},
};

/* Ranks started by two command lines would wait for each other in different places. */
static enum status check_same(const struct config *config, struct comm *world) {
    struct config first = *config;
    comm_broadcast(world, &first, sizeof first, 0);
    char *differences = NULL;
    size_t length = 0;
    FILE *text = open_memstream(&differences, &length);
    if (!text) FATAL("out of memory");
    config_print_differences(config, &first, "this one", "rank 0", text);
    fclose(text);
    differences[strcspn(differences, "\n")] = '\0';
    enum status status = STATUS_OK;
    if (length)
        status = status_fail(STATUS_CONFIG, "rank %d: expected the configuration of rank 0, found %s", world->rank,
                             differences);
    free(differences);
    return comm_agree(world, status);
}

enum status cli_configuration(struct config *config, const struct arguments *arguments, struct comm *world) {
    enum status status =
        config_load(config, arguments->files, arguments->n_files, arguments->overrides, arguments->n_overrides);
    if ((status = comm_agree(world, status))) return status;
    return check_same(config, world);
}

enum status cli_start(const struct config *config, struct comm *world) {
    TRY(check_same(config, world));
    TRY(start_operations(config, world));
    log_info("%s", start_description());
    return STATUS_OK;
}

enum status cli_configure(struct config *config, const struct arguments *arguments, struct comm *world) {
    TRY(cli_configuration(config, arguments, world));
    TRY(start_operations(config, world));
    log_info("%s", start_description());
    return STATUS_OK;
}
