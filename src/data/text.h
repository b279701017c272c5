/* Text as symbols: raw bytes of a memory-mapped file, the alphabet being the distinct bytes of all its
 * splits. Nothing is copied (but by data/noise.h), and nothing is read but what is asked for (and, once, all of it to
 * count). */
#ifndef VQMOE_TEXT_H
#define VQMOE_TEXT_H

#include <stdint.h>

#include "base/status.h"
#include "config/config.h"

enum split { SPLIT_TRAIN, SPLIT_VALID, SPLIT_TEST, SPLITS };
extern const char *const split_names[SPLITS]; /* "train", "valid", "test" */

/* One split: a range of a mapped file; with `newlines: drop` the line feeds in it do not count as symbols. */
struct text_split {
    const char *path;       /* in the configuration */
    const uint8_t *bytes;   /* [size], mapped, or `noised` */
    int64_t size;           /* bytes */
    int64_t symbols;        /* after dropping */
    int64_t *block_symbols; /* symbols before each block of bytes; NULL where nothing is dropped */
    uint8_t *noised;        /* the copy of data/noise.h; NULL without noise */
};

struct text {
    struct text_split splits[SPLITS];
    int vocabulary;         /* V, number of distinct bytes */
    int16_t symbol_of[256]; /* byte -> symbol, -1 if absent; symbols in order of byte value */
    uint8_t byte_of[256];   /* symbol -> byte */
    struct text_map {
        void *address;
        int64_t size;
    } maps[SPLITS];
};

/* Maps the files of data.* and counts. enwik8 and text8: data.train is the whole file of 100,000,000 bytes,
 * cut 90:5:5; any other size is cut in the same proportion, with a warning. text: a file for each split; an
 * empty data.test is an absent split (0 symbols). `config` must outlive the text.
 * Errors: STATUS_DATA, naming key and file: missing, unreadable, empty. */
enum status text_open(struct text *text, const struct config *config);
void text_close(struct text *text);

/* Symbols [from, from + count) of a split; the caller keeps the range inside 0 .. symbols. */
void text_read(const struct text *text, enum split split, int64_t from, int64_t count, int32_t *symbols);

/* The ordered streams (docs/method.md, Data): a split cut into B equal streams, one per row, the remainder
 * dropped. Segment i of row b feeds columns [i L, (i + 1) L) and predicts the symbol after each. */
struct streams {
    const struct text *text;
    enum split split;
    int64_t rows;     /* B, global */
    int64_t length;   /* symbols of a stream */
    int64_t segment;  /* L */
    int64_t segments; /* per epoch: (length - 1) / L; with keep_last the short last one counts too */
};

/* Errors: STATUS_DATA: the text is shorter than `rows` rows of one segment need (with keep_last: of one
 * prediction); names file, needed and found symbols. */
enum status streams_init(struct streams *streams, const struct text *text, enum split split, int64_t rows,
                         int64_t segment, int keep_last);

/* Segment i of rows [first, first + count): tokens and targets [count, L'], row-major; returns L' (L, or less
 * for a kept last one). */
int64_t streams_read(const struct streams *streams, int64_t i, int64_t first, int64_t count, int32_t *tokens,
                     int32_t *targets);

#endif
