#include <stdlib.h>

#include "base/log.h"
#include "cli/cli.h"
#include "data/text.h"

/* The first bytes of a split, control bytes as dots. */
static void show_start(const struct text *text, enum split split) {
    enum { SHOWN = 60 };
    int32_t symbols[SHOWN];
    char line[SHOWN + 1] = "";
    int64_t count = text->splits[split].symbols < SHOWN ? text->splits[split].symbols : SHOWN;
    if (text_read(text, split, 0, count, symbols)) return;
    for (int64_t i = 0; i < count; ++i) {
        uint8_t byte = text->vocabulary.byte_of[symbols[i]];
        line[i] = byte < 32 || byte > 126 ? '.' : (char)byte;
    }
    log_info("       starts \"%s\"", line);
}

enum status cli_data(const struct arguments *arguments, struct comm *world) {
    struct config config;
    struct text text = {0};
    enum status status =
        config_load(&config, arguments->files, arguments->n_files, arguments->overrides, arguments->n_overrides);
    if (!status) status = text_open(&text, &config);
    if ((status = comm_agree(world, status))) return status;
    log_info("alphabet: %d distinct bytes", (int)text.vocabulary.size);
    for (int i = 0; i < SPLITS; ++i) {
        const struct text_split *split = &text.splits[i];
        log_info("%-5s  %s: %lld bytes, %lld symbols", split_names[i],
                 split->path && split->path[0] ? split->path : "(absent)", (long long)split->size,
                 (long long)split->symbols);
        if (split->symbols) show_start(&text, (enum split)i);
    }
    struct streams streams;
    status = streams_init(&streams, &text, SPLIT_TRAIN, config.train.batch, config.model.segment, 0);
    if (!status)
        log_info(
            "an epoch: %lld steps of %lld rows x %lld symbols (train.batch, model.segment); train.steps are %.2f epochs",
            (long long)streams.segments, (long long)streams.rows, (long long)streams.segment,
            (double)config.train.steps / (double)streams.segments);
    text_close(&text);
    return comm_agree(world, status);
}
