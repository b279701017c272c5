/* Batch rows of different lengths, for classification. Everything but attention sees the tokens that are there, row
 * after row, and no padding; attention sees [B, T] with each row's tokens at its end (left padding). No memory then. */
#ifndef VQMOE_RAGGED_H
#define VQMOE_RAGGED_H

#include "nn/pass.h"

/* Arrays in the pass's arena: device memory. */
struct ragged {
    const int32_t *first;    /* [B] position of each row's first token: T - length */
    const int64_t *position; /* [N] t of each token */
    const int64_t *place;    /* [N] b T + t */
    const int64_t *last;     /* [B] number of each row's last token: 0 .. N - 1 */
    int64_t token_first;     /* tokens of the global batch before this rank's first: g of that one */
};

int64_t ragged_tokens(const int32_t *lengths, int64_t rows);
/* Rows first .. first + rows - 1 of a global batch, of whose rows `lengths` (each at least 1) says the lengths, are the
 * micro-batch; those of pass->rows and row_first are this rank's. Sets the pass's ragged, positions (the longest row of
 * the micro-batch), tokens and tokens_micro. */
void ragged_start(struct ragged *ragged, struct pass *pass, const int32_t *lengths, int64_t first, int64_t rows);

/* [B T, D] with 0 in the padding, from packed [N, D]; and back. Without ragged they return what they are given. */
const real *ragged_spread(const struct pass *pass, const real *packed, int64_t D);
const real *ragged_pack(const struct pass *pass, const real *spread, int64_t D);

#endif
