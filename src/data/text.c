#include "data/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

const char *const split_names[SPLITS] = {"train", "valid", "test"};

/* Bytes between two entries of block_symbols: what text_read scans at most before it stands at its symbol. */
enum { TEXT_BLOCK = 4096, LINE_FEED = '\n' };

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

static enum status map_file(struct text_map *map, const char *key, const char *path) {
    if (!path[0]) return status_fail(STATUS_DATA, "%s: expected the path of a text file, found none", key);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return status_fail(STATUS_DATA, "%s: %s: expected a readable file, found: %s", key, path, strerror(errno));
    enum status status = map_open_file(map, key, path, fd);
    close(fd);
    return status;
}

/* enwik8 and text8: 90:5:5 of one file. */
static enum status open_one(struct text *text, const struct config *config) {
    const char *path = config->data.train;
    struct text_map *map = &text->maps[0];
    enum status status = map_file(map, "data.train", path);
    if (status) return status;
    if (map->size != 100000000)
        log_warning("data.train: %s: expected 100000000 bytes, found %lld; cut 90:5:5 all the same", path,
                    (long long)map->size);
    const int64_t cuts[SPLITS + 1] = {0, map->size * 18 / 20, map->size * 19 / 20, map->size};
    for (int s = 0; s < SPLITS; s++)
        text->splits[s] = (struct text_split){
            .path = path, .bytes = (const uint8_t *)map->address + cuts[s], .size = cuts[s + 1] - cuts[s]};
    return STATUS_OK;
}

static enum status open_each(struct text *text, const struct config *config) {
    const char *const keys[SPLITS] = {"data.train", "data.valid", "data.test"};
    const char *const paths[SPLITS] = {config->data.train, config->data.valid, config->data.test};
    for (int s = 0; s < SPLITS; s++) {
        text->splits[s].path = paths[s];
        if (s == SPLIT_TEST && !paths[s][0]) continue;
        enum status status = map_file(&text->maps[s], keys[s], paths[s]);
        if (status) return status;
        text->splits[s].bytes = text->maps[s].address;
        text->splits[s].size = text->maps[s].size;
    }
    return STATUS_OK;
}

/* One pass over a split: which bytes it has, and how many symbols stand before each block. */
static enum status count_symbols(struct text_split *split, int drop, int seen[256]) {
    int64_t blocks = (split->size + TEXT_BLOCK - 1) / TEXT_BLOCK;
    if (drop) {
        split->block_symbols = malloc((size_t)(blocks + 1) * sizeof *split->block_symbols);
        if (!split->block_symbols) return status_fail(STATUS_INTERNAL, "%s: out of memory", split->path);
    }
    int64_t line_feeds = 0;
    for (int64_t i = 0; i < split->size; i++) {
        if (drop && i % TEXT_BLOCK == 0) split->block_symbols[i / TEXT_BLOCK] = i - line_feeds;
        seen[split->bytes[i]] = 1;
        line_feeds += split->bytes[i] == LINE_FEED;
    }
    split->symbols = split->size - (drop ? line_feeds : 0);
    return STATUS_OK;
}

enum status text_open(struct text *text, const struct config *config) {
    struct text opened = {0};
    int seen[256] = {0}, drop = config->data.newlines == NEWLINES_DROP;
    enum status status = config->data.kind == DATA_TEXT ? open_each(&opened, config) : open_one(&opened, config);
    for (int s = 0; s < SPLITS && !status; s++) status = count_symbols(&opened.splits[s], drop, seen);
    if (status) {
        text_close(&opened);
        return status;
    }
    if (drop) seen[LINE_FEED] = 0;
    for (int byte = 0; byte < 256; byte++) {
        opened.symbol_of[byte] = seen[byte] ? (int16_t)opened.vocabulary : -1;
        if (seen[byte]) opened.byte_of[opened.vocabulary++] = (uint8_t)byte;
    }
    *text = opened;
    return STATUS_OK;
}

void text_close(struct text *text) {
    for (int s = 0; s < SPLITS; s++) {
        if (text->maps[s].address) munmap(text->maps[s].address, (size_t)text->maps[s].size);
        free(text->splits[s].block_symbols);
        free(text->splits[s].noised);
    }
    *text = (struct text){0};
}

/* The byte at which a symbol stands: its block by binary search, then its place in the block. */
static int64_t find_symbol(const struct text_split *split, int64_t symbol) {
    if (!split->block_symbols) return symbol;
    int64_t low = 0, high = (split->size + TEXT_BLOCK - 1) / TEXT_BLOCK; /* block_symbols[low] <= symbol < [high] */
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (split->block_symbols[middle] <= symbol)
            low = middle;
        else
            high = middle;
    }
    int64_t at = low * TEXT_BLOCK, skip = symbol - split->block_symbols[low];
    for (;; at++) {
        if (split->bytes[at] == LINE_FEED) continue;
        if (skip-- == 0) return at;
    }
}

void text_read(const struct text *text, enum split split, int64_t from, int64_t count, int32_t *symbols) {
    const struct text_split *source = &text->splits[split];
    CHECK(from >= 0 && count >= 0 && from + count <= source->symbols);
    if (count == 0) return;
    int64_t at = find_symbol(source, from);
    for (int64_t n = 0; n < count; at++) { /* a dropped line feed has no symbol */
        int16_t symbol = text->symbol_of[source->bytes[at]];
        if (symbol >= 0) symbols[n++] = symbol;
    }
}
