/* Labelled texts: what a classifier learns from. All of a set is in memory (IMDB: 50 MB). */
#ifndef VQMOE_EXAMPLES_H
#define VQMOE_EXAMPLES_H

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "data/text.h"
#include "data/vocabulary.h"

/* One split, in file order. Text i is bytes [offset[i], offset[i + 1]), UTF-8 without white space at its ends, never
 * empty. */
struct examples {
    char path[CONFIG_TEXT]; /* "": absent, no examples */
    char *bytes;            /* all texts side by side, owned */
    int64_t *offset;        /* [count + 1], owned */
    int32_t *label;         /* [count] 0 .. C - 1, owned */
    char *places;           /* where in the file: lines, or names of members, each ended by 0, owned */
    int64_t *place;         /* [count] in `places`, owned */
    int64_t count;
};

struct labelled {
    struct examples splits[SPLITS];
    char **classes; /* [C] names, owned: numbers in their order, else by strcmp; of the training file */
    int64_t n_classes;
};

/* data.kind csv, tsv, trees or imdb (docs/finetuning.md has the formats): data.train, and data.valid and data.test
 * where they are named. Without data.valid a tenth of the training examples is taken for it: those for which hash_bytes
 * of the text, from 0, mod 10 is 0. Of imdb, data.train also has the test split unless data.test names another. Says on
 * the log what it took for a header. STATUS_DATA, naming file, line (of archives the member) and what was found:
 * missing, malformed, truncated, empty text, a label that training does not know, NUL, invalid UTF-8, fewer than two
 * classes. STATUS_INTERNAL: memory. */
enum status labelled_open(struct labelled *labelled, const struct config *config);
void labelled_free(struct labelled *labelled);

/* The longest text that a classifier of `length` symbols sees whole has length - 1 bytes. Longer ones: with `truncate`
 * one warning that counts them by split, with `refuse` STATUS_DATA that names the first. */
enum status labelled_check_lengths(const struct labelled *labelled, int64_t length, enum too_long too_long);

/* [C] weights of the loss, which the caller frees: count / (C count of the class), 0 for a class without examples.
 * NULL: memory. */
double *labelled_class_weights(const struct labelled *labelled);

/* A text as symbols: white space at its ends trimmed, the last length - 1 bytes, each through the alphabet of `bytes`
 * (an absent one as a space, without a space as symbol 0), then the symbol V, `<S>`. tokens: room for `length`. Returns
 * how many (at least 1, the `<S>`); *truncated: whether bytes were left out. */
int64_t text_encode(const char *text, int64_t size, const struct vocabulary *bytes, int64_t length, int32_t *tokens,
                    bool *truncated);
int64_t examples_encode(const struct examples *examples, int64_t i, const struct vocabulary *bytes, int64_t length,
                        int32_t *tokens, bool *truncated);

#endif
