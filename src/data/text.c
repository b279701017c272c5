#include "data/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

const char *const split_names[SPLITS] = {"train", "valid", "test"};

/* ---- Files ---- */

static enum status map_open_file(struct text_map *map, const char *key, const char *path, int fd) {
    struct stat info;
    if (fstat(fd, &info) != 0) return status_fail(STATUS_DATA, "%s: %s: cannot stat: %s", key, path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return status_fail(STATUS_DATA, "%s: %s: expected a file, found %s", key, path,
                           S_ISDIR(info.st_mode) ? "a folder" : "a device");
    if (info.st_size == 0) return status_fail(STATUS_DATA, "%s: %s: expected text, found an empty file", key, path);
    void *address = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED)
        return status_fail(STATUS_DATA, "%s: %s: cannot map %lld bytes: %s", key, path, (long long)info.st_size,
                           strerror(errno));
    *map = (struct text_map){address, info.st_size};
    return STATUS_OK;
}

enum status text_map_file(struct text_map *map, const char *key, const char *path) {
    if (!path[0]) return status_fail(STATUS_DATA, "%s: expected the path of a text file, found none", key);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return status_fail(STATUS_DATA, "%s: %s: expected a readable file, found: %s", key, path, strerror(errno));
    enum status status = map_open_file(map, key, path, fd);
    close(fd);
    return status;
}

void text_unmap(struct text_map *map) {
    if (map->address) munmap(map->address, (size_t)map->size);
    *map = (struct text_map){0};
}

enum status text_open(struct text *text, const struct config *config) {
    struct text opened = {0};
    bool prepared = config->data.prepared[0] != '\0';
    enum status status = STATUS_OK;
    if (config->data.kind > DATA_LM1B)
        status =
            status_fail(STATUS_CONFIG, "data.kind: expected enwik8, text8, text, words or lm1b, found labelled texts");
    else if (!prepared && config->data.kind > DATA_TEXT)
        status = status_fail(STATUS_DATA, "data.prepared: expected the folder of `vqmoe data prepare` where data.kind "
                                          "is words or lm1b, found none");
    if (!status) status = prepared ? text_open_prepared(&opened, config) : text_open_raw(&opened, config);
    if (status)
        text_close(&opened);
    else
        *text = opened;
    return status;
}

void text_part_close(struct text_part *part) {
    for (int i = 0; i < 2; i++) text_unmap(&part->maps[i]);
    free(part->path);
}

void text_close(struct text *text) {
    for (int s = 0; s < SPLITS; s++) {
        struct text_split *split = &text->splits[s];
        text_unmap(&text->maps[s]);
        free(split->block_symbols);
        for (int64_t i = 0; i < split->n_parts; i++) text_part_close(&split->parts[i]);
        free(split->parts);
        free(split->noised);
    }
    free(text->becomes);
    vocabulary_free(&text->vocabulary);
    *text = (struct text){0};
}

/* ---- Another vocabulary ---- */

static enum status copy_vocabulary(struct vocabulary *to, const struct vocabulary *from, const char *path) {
    *to = *from;
    if (from->bytes) return STATUS_OK;
    char *lines = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&lines, &length);
    if (!file) return status_fail(STATUS_INTERNAL, "%s: out of memory", path);
    for (int64_t i = 0; i < from->size; i++) {
        int64_t n;
        const char *word = vocabulary_symbol(from, i, &n);
        fwrite(word, 1, (size_t)n, file);
        fputc('\n', file);
    }
    fclose(file);
    enum status status = vocabulary_from_words(to, lines, (int64_t)length, path);
    free(lines);
    return status;
}

static enum status map_symbols(const struct text *text, const struct vocabulary *vocabulary, const char *path,
                               int32_t *becomes) {
    for (int64_t i = 0; i < text->vocabulary.size; i++) {
        int64_t n;
        const char *symbol = vocabulary_symbol(&text->vocabulary, i, &n);
        becomes[i] = vocabulary_find(vocabulary, symbol, n);
        if (becomes[i] >= 0) continue;
        if (text->vocabulary.bytes)
            return status_fail(STATUS_DATA, "%s: expected only the %lld symbols of %s, found byte %d",
                               text->splits[SPLIT_TRAIN].path, (long long)vocabulary->size, path, (uint8_t)*symbol);
        return status_fail(STATUS_DATA, "%s: expected only the %lld words of %s, found '%.*s'",
                           text->splits[SPLIT_TRAIN].path, (long long)vocabulary->size, path, n < 100 ? (int)n : 100,
                           symbol);
    }
    return STATUS_OK;
}

enum status text_take_vocabulary(struct text *text, const struct vocabulary *vocabulary, const char *path) {
    if (vocabulary_same(&text->vocabulary, vocabulary)) return STATUS_OK;
    if (text->vocabulary.bytes != vocabulary->bytes)
        return status_fail(STATUS_DATA, "%s: expected %s, as %s has, found %s", text->splits[SPLIT_TRAIN].path,
                           vocabulary->bytes ? "bytes" : "words", path, text->vocabulary.bytes ? "bytes" : "words");
    struct vocabulary taken = {0};
    text->ids = text->vocabulary.size;
    text->becomes = malloc((size_t)text->ids * sizeof *text->becomes);
    if (!text->becomes) return status_fail(STATUS_INTERNAL, "%s: out of memory", path);
    TRY(map_symbols(text, vocabulary, path, text->becomes));
    TRY(copy_vocabulary(&taken, vocabulary, path));
    for (int byte = 0; byte < 256; byte++)
        if (text->raw_symbol[byte] >= 0 && vocabulary->bytes)
            text->raw_symbol[byte] = (int16_t)text->becomes[text->raw_symbol[byte]];
    vocabulary_free(&text->vocabulary);
    text->vocabulary = taken;
    return STATUS_OK;
}

/* ---- Reading ---- */

/* The part that has the symbol. */
static const struct text_part *find_part(const struct text_split *split, int64_t symbol) {
    int64_t low = 0, high = split->n_parts; /* parts[low].first <= symbol < [high] */
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (split->parts[middle].first <= symbol)
            low = middle;
        else
            high = middle;
    }
    return &split->parts[low];
}

/* Symbols [at, at + count) of a part. */
static void widen(const struct text_part *part, int64_t at, int64_t count, int32_t *symbols) {
    if (part->width == 1)
        for (int64_t i = 0; i < count; i++) symbols[i] = ((const uint8_t *)part->ids)[at + i];
    else if (part->width == 2)
        for (int64_t i = 0; i < count; i++) symbols[i] = ((const uint16_t *)part->ids)[at + i];
    else
        memcpy(symbols, (const int32_t *)part->ids + at, (size_t)count * sizeof *symbols);
}

/* Checks what a file says, and makes it the vocabulary's. */
static enum status take_ids(const struct text *text, const struct text_part *part, int64_t at, int64_t count,
                            int32_t *symbols) {
    uint32_t most = 0; /* a negative one is large */
    for (int64_t i = 0; i < count; i++) most = (uint32_t)symbols[i] > most ? (uint32_t)symbols[i] : most;
    if (most < text->ids) {
        for (int64_t i = 0; i < count && text->becomes; i++) symbols[i] = text->becomes[symbols[i]];
        return STATUS_OK;
    }
    int64_t bad = 0;
    while ((uint32_t)symbols[bad] < text->ids) bad++;
    return status_fail(STATUS_DATA, "%s: token %lld: expected a symbol below %lld, found %lu", part->path,
                       (long long)(at + bad), (long long)text->ids, (unsigned long)(uint32_t)symbols[bad]);
}

enum status text_read(const struct text *text, enum split split, int64_t from, int64_t count, int32_t *symbols) {
    const struct text_split *source = &text->splits[split];
    CHECK(from >= 0 && count >= 0 && from + count <= source->symbols);
    if (count == 0) return STATUS_OK;
    if (!source->parts) {
        text_read_raw(text, source, from, count, symbols);
        return STATUS_OK;
    }
    for (const struct text_part *part = find_part(source, from); count > 0; part++) {
        int64_t at = from - part->first, n = part->symbols - at < count ? part->symbols - at : count;
        widen(part, at, n, symbols);
        if (!part->final) TRY(take_ids(text, part, at, n, symbols));
        from += n;
        symbols += n;
        count -= n;
    }
    return STATUS_OK;
}
