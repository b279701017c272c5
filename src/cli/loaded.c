#include "cli/loaded.h"

#include <string.h>

#include "base/log.h"
#include "train/checkpoint.h"
#include "train/start.h"

/* The data's alphabet is the checkpoint's, symbol by symbol; the data may lack some of them. */
static enum status take_alphabet(struct text *text, const uint8_t *bytes, int64_t V, const char *path) {
    int16_t symbol_of[256];
    for (int i = 0; i < 256; ++i) symbol_of[i] = -1;
    for (int64_t i = 0; i < V; ++i) symbol_of[bytes[i]] = (int16_t)i;
    for (int i = 0; i < 256; ++i)
        if (text->symbol_of[i] >= 0 && symbol_of[i] < 0)
            return status_fail(STATUS_DATA, "%s: expected only the %lld bytes of %s, found byte %d",
                               text->splits[SPLIT_TRAIN].path, (long long)V, path, i);
    memcpy(text->symbol_of, symbol_of, sizeof symbol_of);
    if (text->splits[SPLIT_TRAIN].block_symbols) text->symbol_of['\n'] = -1; /* dropped: still no symbol */
    memcpy(text->byte_of, bytes, (size_t)V);
    text->vocabulary = (int)V;
    return STATUS_OK;
}

enum status loaded_open(struct loaded *loaded, const struct arguments *arguments, struct comm *world) {
    struct config *config = &loaded->config;
    uint8_t bytes[256];
    int64_t V;
    const char *path = arguments->files[0];
    *loaded = (struct loaded){0};
    enum status status = checkpoint_read_config(path, world, config, arguments->overrides, arguments->n_overrides,
                                                bytes, &V, &loaded->step);
    if (status) return status;
    if ((status = start_operations(config, world))) return status;
    log_info("%s", start_description());
    status = text_open(&loaded->text, config);
    if (!status) status = take_alphabet(&loaded->text, bytes, V, path);
    if ((status = comm_agree(world, status))) return status;
    if ((status = comm_agree(world, model_init(&loaded->model, config, V, 0, world, false)))) return status;
    return checkpoint_read_parameters(path, &loaded->model);
}

void loaded_free(struct loaded *loaded) {
    model_free(&loaded->model);
    text_close(&loaded->text);
}
