/* How well a classifier does. */
#ifndef VQMOE_SCORES_H
#define VQMOE_SCORES_H

#include <stdint.h>

#include "base/status.h"

struct scores {
    int64_t classes;    /* C */
    int64_t *confusion; /* [C, C] examples by class (row) and prediction (column), owned; sums over ranks add up */
};

/* STATUS_INTERNAL: memory. */
enum status scores_init(struct scores *scores, int64_t classes);
void scores_free(struct scores *scores);
void scores_add(struct scores *scores, int32_t class, int32_t predicted);

/* 0 without examples. */
double scores_accuracy(const struct scores *scores);
/* The mean over all C classes of F1 = 2 hits / (examples + predictions), 0 for a class with neither (as scikit-learn's
 * f1_score with average "macro", labels all C and zero_division 0). */
double scores_macro_f1(const struct scores *scores);

/* On the log, at most 100 columns wide: the matrix of few classes, of many the pairs most often confused. `names`: [C]
 */
void scores_log(const struct scores *scores, char *const *names);
/* The matrix as tab-separated values, a line and a column for each class, line feeds and tabs in names as spaces; takes
 * the place of an earlier file when it is whole. STATUS_WRITE. */
enum status scores_write(const struct scores *scores, char *const *names, const char *path);

#endif
