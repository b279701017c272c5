#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "cli/cli.h"
#include "data/manifest.h"

enum { SHOWN = 200, LINES = 3 }; /* symbols, and lines of words, of a split */

/* The first bytes of a split, control bytes as dots. */
static void show_bytes(const struct text *text, const int32_t *symbols, int64_t count) {
    char line[61] = "";
    for (int64_t i = 0; i < count && i < 60; ++i) {
        uint8_t byte = text->vocabulary.byte_of[symbols[i]];
        line[i] = byte < 32 || byte > 126 ? '.' : (char)byte;
    }
    log_info("       starts \"%s\"", line);
}

/* The first lines, decoded, each with the symbol that ends it; what does not fit a line is left out. */
static void show_words(const struct vocabulary *vocabulary, const int32_t *symbols, int64_t count) {
    char line[120] = "";
    size_t used = 0;
    for (int64_t i = 0, lines = 0; i < count && lines < LINES; ++i) {
        int64_t length;
        const char *word = vocabulary_symbol(vocabulary, symbols[i], &length);
        if (used + (size_t)length + 2 < sizeof line)
            used += (size_t)snprintf(line + used, sizeof line - used, "%s%.*s", used ? " " : "", (int)length, word);
        if (symbols[i] != vocabulary->end && i + 1 < count) continue;
        log_info("       \"%s\"", line);
        lines++;
        used = 0;
    }
}

static void show_split(const struct text *text, enum split s) {
    const struct text_split *split = &text->splits[s];
    int32_t symbols[SHOWN];
    int64_t count = split->symbols < SHOWN ? split->symbols : SHOWN;
    char sentences[64] = "", parts[64] = "";
    if (split->sentences) snprintf(sentences, sizeof sentences, ", %lld sentences", (long long)split->sentences);
    if (split->parts) snprintf(parts, sizeof parts, " in %lld parts", (long long)split->n_parts);
    log_info("%-5s  %s: %lld symbols%s%s", split_names[s], split->symbols ? split->path : "(absent)",
             (long long)split->symbols, sentences, parts);
    if (!count || text_read(text, s, 0, count, symbols)) return;
    if (text->vocabulary.bytes)
        show_bytes(text, symbols, count);
    else
        show_words(&text->vocabulary, symbols + (split->sentences > 0), count - (split->sentences > 0));
}

void data_show(const struct text *text, const struct config *config) {
    struct streams streams;
    log_info("vocabulary: %lld %s", (long long)text->vocabulary.size,
             text->vocabulary.bytes ? "distinct bytes" : "words");
    for (int s = 0; s < SPLITS; ++s) show_split(text, (enum split)s);
    if (text->splits[SPLIT_TRAIN].sentences) return; /* shuffled, not cut into streams */
    if (streams_init(&streams, text, SPLIT_TRAIN, config->train.batch, config->model.segment, 0)) {
        log_info("%s", status_message());
        status_clear();
        return;
    }
    log_info(
        "an epoch: %lld steps of %lld rows x %lld symbols (train.batch, model.segment); train.steps are %.2f epochs",
        (long long)streams.segments, (long long)streams.rows, (long long)streams.segment,
        (double)config->train.steps / (double)streams.segments);
}

/* What the manifest says beside it. */
static void show_manifest(const struct manifest *m) {
    log_info("%s, prepared by %s, %d bytes a token", manifest_kinds[m->kind], m->tool, manifest_width(m->V));
    for (int64_t i = 0; i < m->n_sources; ++i)
        log_info("source %s: %lld bytes, sha256 %s", m->sources[i].name, (long long)m->sources[i].bytes,
                 m->sources[i].sha256);
    for (int s = 0; s < SPLITS; ++s)
        if (m->splits[s].n_parts && !m->bytes)
            log_info("%s: %lld words unknown", split_names[s], (long long)m->splits[s].unknown);
}

static bool is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* The configuration that a finished folder answers. */
static enum status configure(struct config *config, const struct manifest *manifest, const char *folder) {
    char kind[64], newlines[64], prepared[CONFIG_TEXT + 32];
    const char *overrides[] = {kind, newlines, prepared};
    snprintf(kind, sizeof kind, "data.kind=%s", manifest_kinds[manifest->kind]);
    snprintf(newlines, sizeof newlines, "data.newlines=%s", manifest->newlines == NEWLINES_DROP ? "drop" : "keep");
    snprintf(prepared, sizeof prepared, "data.prepared=%s", folder);
    return config_load(config, NULL, 0, overrides, 3);
}

static enum status configure_folder(struct config *config, const char *folder) {
    struct manifest manifest;
    enum status status = manifest_read(&manifest, folder);
    if (!status) status = configure(config, &manifest, folder);
    manifest_free(&manifest);
    return status;
}

static enum status describe(const struct config *config, bool verify, struct comm *world) {
    struct manifest manifest = {0};
    struct text text = {0};
    bool prepared = config->data.prepared[0];
    enum status status = text_open(&text, config);
    if (!status && prepared) status = manifest_read(&manifest, config->data.prepared);
    if (!status && verify && !prepared)
        status = status_fail(STATUS_CONFIG, "--verify: expected a prepared folder, found none in data.prepared");
    if (!status && prepared) show_manifest(&manifest);
    if (!status) data_show(&text, config);
    if (!status && verify) status = manifest_verify(&manifest, &text, world->rank, world->size);
    text_close(&text);
    manifest_free(&manifest);
    return status;
}

enum status cli_data_describe(const struct arguments *arguments, struct comm *world) {
    struct config config = {0};
    if (arguments->n_files == 1 && is_folder(arguments->files[0]))
        TRY(comm_agree(world, configure_folder(&config, arguments->files[0])));
    else
        TRY(cli_configuration(&config, arguments, world));
    TRY(comm_agree(world, describe(&config, arguments->verify, world)));
    if (arguments->verify) log_info("whole: every part fits its checksums");
    return STATUS_OK;
}
