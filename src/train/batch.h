/* A global batch of labelled texts: what a classifier's step and its evaluation are given, the same on every rank. */
#ifndef VQMOE_BATCH_H
#define VQMOE_BATCH_H

#include "model/model.h"

struct batch {
    int64_t rows;           /* at least 1 */
    const int32_t *lengths; /* [rows] symbols of each text, at least 1 */
    const int32_t *tokens;  /* the texts, one after another */
    const int32_t *labels;  /* [rows] 0 .. C - 1; NULL: not known, no loss */
    const double *weights;  /* [C] of classes in the mean of losses; NULL: 1 */
};

/* Rows first .. first + rows - 1 become the micro-batch of a pass that says which of them are this rank's
 * (ragged_start) and gets symbols, shares and the count of tokens. Returns this rank's labels or NULL. */
const int32_t *batch_start(const struct batch *batch, struct pass *pass, struct ragged *ragged, int64_t first,
                           int64_t rows);

#endif
