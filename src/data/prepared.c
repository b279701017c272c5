/* A folder that `vqmoe data prepare` wrote, as text. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "data/manifest.h"
#include "data/sha256.h"

/* What the configuration asks for and what the folder is. */
static enum status check_kind(const struct manifest *m, const struct config *config) {
    static const char *const newlines[] = {[NEWLINES_DROP] = "drop", [NEWLINES_KEEP] = "keep"};
    const char *folder = config->data.prepared;
    if (m->kind != config->data.kind)
        return status_fail(STATUS_DATA, "%s/" MANIFEST_FILE ": kind: expected %s (data.kind), found %s", folder,
                           manifest_kinds[config->data.kind], manifest_kinds[m->kind]);
    if (m->bytes && m->newlines != config->data.newlines)
        return status_fail(STATUS_DATA, "%s/" MANIFEST_FILE ": newlines: expected %s (data.newlines), found %s", folder,
                           newlines[config->data.newlines], newlines[m->newlines]);
    return STATUS_OK;
}

static enum status open_vocabulary(struct text *text, const struct manifest *m, const char *folder) {
    char path[PATH_MAX], sum[SHA256_TEXT];
    struct text_map map = {0};
    if (m->bytes) {
        bool seen[256] = {false};
        for (int64_t i = 0; i < m->V; ++i) seen[m->byte_of[i]] = true;
        vocabulary_from_bytes(&text->vocabulary, seen);
        return STATUS_OK;
    }
    snprintf(path, sizeof path, "%s/" VOCABULARY_FILE, folder);
    TRY(text_map_file(&map, "data.prepared", path));
    sha256_of(map.address, (size_t)map.size, sum);
    enum status status = STATUS_OK;
    if (map.size != m->vocabulary_bytes || strcmp(sum, m->vocabulary_sha256) != 0)
        status = status_fail(
            STATUS_DATA, "%s: expected %lld bytes with sha256 %s (vocabulary of " MANIFEST_FILE "), found %lld with %s",
            path, (long long)m->vocabulary_bytes, m->vocabulary_sha256, (long long)map.size, sum);
    if (!status) status = vocabulary_from_words(&text->vocabulary, map.address, map.size, path);
    text_unmap(&map);
    if (!status && text->vocabulary.size != m->V)
        status = status_fail(STATUS_DATA, "%s: expected %lld words (vocabulary.words of " MANIFEST_FILE "), found %lld",
                             path, (long long)m->V, (long long)text->vocabulary.size);
    return status;
}

/* Maps a file of the folder that the manifest says the size of; an empty one is not mapped. */
static enum status map_sized(struct text_map *map, const char *folder, const char *name, int64_t bytes) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!bytes) return STATUS_OK;
    TRY(text_map_file(map, "data.prepared", path));
    if (map->size == bytes) return STATUS_OK;
    return status_fail(STATUS_DATA, "%s: expected %lld bytes (" MANIFEST_FILE "), found %lld", path, (long long)bytes,
                       (long long)map->size);
}

/* Its first and last entry; all of it is looked at by `data describe --verify`. */
static enum status check_sentences(const struct text_part *part, int64_t tokens) {
    int64_t first = -1, last = -1;
    if (part->begin) {
        first = part->begin[0];
        last = part->begin[part->sentences];
    }
    if (first == 0 && last == tokens - 1) return STATUS_OK;
    return status_fail(STATUS_DATA, "%s: expected sentences from token 0 to %lld in its .idx file, found %lld to %lld",
                       part->path, (long long)tokens - 1, (long long)first, (long long)last);
}

static enum status open_part(struct text_part *part, const struct manifest *m, enum split split, int64_t number,
                             const char *folder) {
    const struct manifest_part *known = &m->splits[split].parts[number];
    char name[PART_NAME], path[PATH_MAX];
    manifest_part_name(name, split, number, ".bin");
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!(part->path = strdup(path))) FATAL("out of memory");
    part->width = manifest_width(m->V);
    TRY(map_sized(&part->maps[0], folder, name, known->tokens * part->width));
    part->ids = part->maps[0].address;
    part->symbols = known->tokens;
    if (m->kind != DATA_LM1B) return STATUS_OK;
    manifest_part_name(name, split, number, ".idx");
    TRY(map_sized(&part->maps[1], folder, name, (known->sentences + 1) * (int64_t)sizeof *part->begin));
    part->begin = part->maps[1].address;
    part->sentences = known->sentences;
    part->symbols -= number + 1 < m->splits[split].n_parts; /* the next part's mark is this one's last */
    return check_sentences(part, known->tokens);
}

static enum status open_split(struct text *text, const struct manifest *m, enum split s, const char *folder) {
    struct text_split *split = &text->splits[s];
    *split = (struct text_split){.path = folder};
    split->parts = calloc((size_t)m->splits[s].n_parts + 1, sizeof *split->parts);
    if (!split->parts) FATAL("out of memory");
    for (int64_t i = 0; i < m->splits[s].n_parts; ++i) {
        struct text_part *part = &split->parts[split->n_parts++];
        TRY(open_part(part, m, s, i, folder));
        part->first = split->symbols;
        text->sum = hash_splitmix64(text->sum ^ m->splits[s].parts[i].sum) ^ m->splits[s].parts[i].index;
        split->symbols += part->symbols;
        split->sentences += part->sentences;
    }
    return STATUS_OK;
}

enum status text_open_prepared(struct text *text, const struct config *config) {
    const char *folder = config->data.prepared;
    struct manifest manifest;
    enum status status = manifest_read(&manifest, folder);
    if (!status) status = check_kind(&manifest, config);
    if (!status) status = open_vocabulary(text, &manifest, folder);
    text->ids = manifest.V;
    for (int s = 0; s < SPLITS && !status; ++s) status = open_split(text, &manifest, (enum split)s, folder);
    manifest_free(&manifest);
    return status;
}
