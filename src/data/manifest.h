/* manifest.json of a prepared folder (docs/data.md): what it was made from, and what its files hold. */
#ifndef VQMOE_MANIFEST_H
#define VQMOE_MANIFEST_H

#include "data/text.h"

#define MANIFEST_FILE "manifest.json"
#define VOCABULARY_FILE "vocabulary.txt"
enum { MANIFEST_VERSION = 1, MANIFEST_NAME = 256, SHA256_TEXT = 65, PART_NAME = 32 };

/* A file that was read. */
struct manifest_source {
    char name[MANIFEST_NAME]; /* without folders */
    int64_t bytes;
    int64_t modified;         /* microseconds since 1970 */
    char sha256[SHA256_TEXT]; /* in hexadecimal */
};

struct manifest_part {
    int64_t tokens;    /* in the file */
    int64_t sentences; /* lm1b; else 0 */
    int64_t unknown;   /* words that became the unknown symbol */
    int64_t bytes;     /* of the text that it was made of */
    uint64_t sum;      /* XXH3 of the file */
    uint64_t index;    /* XXH3 of the file of sentences; 0 where there is none */
};

struct manifest_split {
    struct manifest_part *parts; /* [n_parts], owned */
    int64_t n_parts;             /* 0: the split is absent */
    int64_t tokens;              /* symbols of the split: of its parts, but for what two of lm1b share */
    int64_t sentences, unknown, bytes;
};

struct manifest {
    enum data_kind kind;
    enum newlines newlines;
    int64_t min_count;               /* words, lm1b; 0 where the vocabulary came from a file */
    char tool[64];                   /* "vqmoe 0.1.0" */
    struct manifest_source *sources; /* [n_sources], owned */
    int64_t n_sources;
    int64_t V;
    bool bytes;               /* symbols are bytes: */
    uint8_t byte_of[256];     /* [V] */
    int64_t vocabulary_bytes; /* words: of vocabulary.txt */
    char vocabulary_sha256[SHA256_TEXT];
    struct manifest_split splits[SPLITS];
};

extern const char *const manifest_kinds[]; /* "enwik8", ... by enum data_kind */

/* Bytes of a token: the least of 1, 2 and 4 that hold V. */
int manifest_width(int64_t V);
/* "train-00012.bin", or ".idx" */
void manifest_part_name(char name[PART_NAME], enum split split, int64_t part, const char *ending);

/* Adds up the parts of every split. STATUS_DATA, naming `path`: more than 2^53. */
enum status manifest_add_up(struct manifest *manifest, const char *path);
/* All of it from the text of a file that nobody has to trust; manifest_free a failed one too. STATUS_DATA: `path`, the
 * key, what was expected and found: not JSON, a key missing, of another type or out of its range, sums that differ. */
enum status manifest_parse(struct manifest *manifest, const char *json, int64_t length, const char *path);
/* The file in a folder; STATUS_DATA, also where there is none (the preparation has not ended). */
enum status manifest_read(struct manifest *manifest, const char *folder);
/* The text, ended by a line feed; the caller frees it. */
char *manifest_text(const struct manifest *manifest);
/* Of the parts that fall to this rank every byte against its checksum, every token, every sentence. text: the folder,
 * opened. STATUS_DATA, naming the file. */
enum status manifest_verify(const struct manifest *manifest, const struct text *text, int rank, int ranks);
void manifest_free(struct manifest *manifest);

#endif
