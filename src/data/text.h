/* Text as symbols: raw bytes of a memory-mapped file, the alphabet being the distinct bytes of all its splits, or the
 * mapped parts of a folder that `vqmoe data prepare` wrote (docs/data.md). Nothing is copied (but by data/noise.h), and
 * nothing is read but what is asked for (and, of raw bytes, once all of it to count). */
#ifndef VQMOE_TEXT_H
#define VQMOE_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "config/config.h"
#include "data/vocabulary.h"

enum split { SPLIT_TRAIN, SPLIT_VALID, SPLIT_TEST, SPLITS };
extern const char *const split_names[SPLITS]; /* "train", "valid", "test" */

struct text_map {
    void *address; /* NULL: nothing mapped */
    int64_t size;
};

/* A file of symbols. Of sentences each has a mark before it, the end of the last one is the mark that begins the next
 * part: only the last part's is a symbol of its own. */
struct text_part {
    int64_t first;         /* symbol number in the split of its first */
    int64_t symbols;       /* that count in the split */
    int64_t sentences;     /* 0 where there are none */
    const uint32_t *begin; /* [sentences + 1] of each sentence's mark, from the part's first symbol; the last: of the
                              mark behind all; mapped; NULL where there are none */
    const void *ids;       /* [symbols] of `width` bytes, little endian; mapped */
    int width;             /* 1, 2 or 4 */
    bool final;            /* ids are the vocabulary's, whatever becomes of the other parts' */
    char *path;            /* owned; NULL of noised ones */
    struct text_map maps[2];
};

/* One split. Raw: a range of a mapped file; with `newlines: drop` the line feeds in it do not count as symbols. Else
 * its parts, one after the other. */
struct text_split {
    const char *path;  /* in the configuration */
    int64_t symbols;   /* after dropping; 0: the split is absent */
    int64_t sentences; /* 0 where there are none */

    const uint8_t *bytes;   /* raw: [size], mapped */
    int64_t size;           /* raw: bytes */
    int64_t *block_symbols; /* raw: symbols before each block of bytes; NULL where nothing is dropped */

    struct text_part *parts; /* [n_parts], NULL: raw */
    int64_t n_parts;
    void *noised; /* the copy of data/noise.h that the one part has; NULL without noise */
};

struct text {
    uint64_t sum; /* of prepared parts: of their checksums, in order; 0: raw */
    struct vocabulary vocabulary;
    struct text_split splits[SPLITS];
    struct text_map maps[SPLITS]; /* raw */
    int16_t raw_symbol[256];      /* raw: byte -> symbol, -1 if absent or dropped */
    int32_t *becomes; /* of parts: their symbol -> the vocabulary's (text_take_vocabulary); NULL: as it is; owned */
    int64_t ids;      /* of parts: their symbols are below; becomes [ids] */
};

/* Maps data.prepared, or the files of data.* and counts. enwik8 and text8: data.train is the whole file of 100,000,000
 * bytes, cut 90:5:5; any other size is cut in the same proportion, with a warning. text: a file for each split; an
 * empty data.test is an absent split (0 symbols). `config` must outlive the text.
 * Errors: STATUS_DATA, naming key and file: missing, unreadable, empty; words or sentences without data.prepared; a
 * prepared folder that is not finished, is of another kind, or whose files are not those of its manifest. */
enum status text_open(struct text *text, const struct config *config);
void text_close(struct text *text);

/* From now on symbols are those of a model's vocabulary, of which the text may lack some. STATUS_DATA: the text has one
 * that the model, of the file `path`, has not. */
enum status text_take_vocabulary(struct text *text, const struct vocabulary *vocabulary, const char *path);

/* Symbols [from, from + count) of a split; the caller keeps the range inside 0 .. symbols. STATUS_DATA: a part has a
 * number that is no symbol; names file and token. */
enum status text_read(const struct text *text, enum split split, int64_t from, int64_t count, int32_t *symbols);

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

/* Segment i of rows [first, first + count): tokens and targets [count, L'], row-major; *width, unless NULL: L' (L, or
 * less for a kept last one). STATUS_DATA: of text_read. */
enum status streams_read(const struct streams *streams, int64_t i, int64_t first, int64_t count, int32_t *tokens,
                         int32_t *targets, int64_t *width);

/* ---- Between the files of this folder ---- */

/* Maps a file of data.* to be read: STATUS_DATA, naming `key` and file. */
enum status text_map_file(struct text_map *map, const char *key, const char *path);
void text_unmap(struct text_map *map);
void text_part_close(struct text_part *part);
/* text_raw.c, prepared.c: what text_open and text_read come to; of a failed open the caller closes what is there. */
enum status text_open_raw(struct text *text, const struct config *config);
void text_read_raw(const struct text *text, const struct text_split *split, int64_t from, int64_t count,
                   int32_t *symbols);
enum status text_open_prepared(struct text *text, const struct config *config);

#endif
