/* Labelled texts: what a classifier learns from. All of a set is in memory (IMDB: 50 MB). */
#ifndef VQMOE_EXAMPLES_H
#define VQMOE_EXAMPLES_H

#include <stdint.h>

#include "config/config.h"
#include "data/text.h"

/* One split, in file order. */
struct examples {
    char *bytes;     /* all texts side by side, owned */
    int64_t *offset; /* [count + 1], owned */
    int32_t *label;  /* [count] 0 .. C - 1, owned */
    int64_t count;
};

struct labelled {
    struct examples splits[SPLITS];
    char **classes; /* [C] names, owned: numbers in their order, else by strcmp; of the training split */
    int64_t n_classes;
};

/* data.kind csv, tsv, trees or imdb: data.train, and data.valid and data.test where they are named. Without data.valid
 * a tenth of the training examples is taken for it: those whose text's hash mod 10 is 0. Where the training set is a
 * tree of train/ and test/ (imdb), test is read from there. STATUS_DATA, naming file, line and what was found: missing,
 * malformed, truncated, empty text, a label that training does not know, NUL, invalid UTF-8, fewer than two classes. */
enum status labelled_open(struct labelled *labelled, const struct config *config);
void labelled_free(struct labelled *labelled);

#endif
