/* Raw bytes of mapped files as text. */
#include <stdlib.h>

#include "base/log.h"
#include "data/text.h"

/* Bytes between two entries of block_symbols: what is scanned at most before a reader stands at its symbol. */
enum { TEXT_BLOCK = 4096, LINE_FEED = '\n' };

/* enwik8 and text8: 90:5:5 of one file. */
static enum status open_one(struct text *text, const struct config *config) {
    const char *path = config->data.train;
    struct text_map *map = &text->maps[0];
    TRY(text_map_file(map, "data.train", path));
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
        TRY(text_map_file(&text->maps[s], keys[s], paths[s]));
        text->splits[s].bytes = text->maps[s].address;
        text->splits[s].size = text->maps[s].size;
    }
    return STATUS_OK;
}

/* One pass over a split: which bytes it has, and how many symbols stand before each block. */
static enum status count_symbols(struct text_split *split, bool drop, bool seen[256]) {
    int64_t blocks = (split->size + TEXT_BLOCK - 1) / TEXT_BLOCK;
    if (drop) {
        split->block_symbols = malloc((size_t)(blocks + 1) * sizeof *split->block_symbols);
        if (!split->block_symbols) return status_fail(STATUS_INTERNAL, "%s: out of memory", split->path);
    }
    int64_t line_feeds = 0;
    for (int64_t i = 0; i < split->size; i++) {
        if (drop && i % TEXT_BLOCK == 0) split->block_symbols[i / TEXT_BLOCK] = i - line_feeds;
        seen[split->bytes[i]] = true;
        line_feeds += split->bytes[i] == LINE_FEED;
    }
    split->symbols = split->size - (drop ? line_feeds : 0);
    return STATUS_OK;
}

enum status text_open_raw(struct text *text, const struct config *config) {
    bool seen[256] = {false}, drop = config->data.newlines == NEWLINES_DROP;
    TRY(config->data.kind == DATA_TEXT ? open_each(text, config) : open_one(text, config));
    for (int s = 0; s < SPLITS; s++) TRY(count_symbols(&text->splits[s], drop, seen));
    if (drop) seen[LINE_FEED] = false;
    vocabulary_from_bytes(&text->vocabulary, seen);
    for (int byte = 0; byte < 256; byte++) text->raw_symbol[byte] = text->vocabulary.symbol_of[byte];
    return STATUS_OK;
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

void text_read_raw(const struct text *text, const struct text_split *split, int64_t from, int64_t count,
                   int32_t *symbols) {
    int64_t at = find_symbol(split, from);
    for (int64_t n = 0; n < count; at++) { /* a dropped line feed has no symbol */
        int16_t symbol = text->raw_symbol[split->bytes[at]];
        if (symbol >= 0) symbols[n++] = symbol;
    }
}
