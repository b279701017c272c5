/* Batch rows of different lengths, for classification. Everything but attention sees the tokens that are there, row
 * after row, and no padding; attention sees [B, T] with each row's tokens at its end (left padding). */
#ifndef VQMOE_RAGGED_H
#define VQMOE_RAGGED_H

#include <stdint.h>

struct ragged {
    const int32_t *first;   /* [B] position of each row's first token: T - length; device memory, as what follows */
    const int64_t *place;   /* [N] b T + t of each token */
    const int32_t *lengths; /* host [B], at least 1 */
    const int64_t *last;    /* [B] number of each row's last token: 0 .. N - 1 */
    int64_t token_first;    /* tokens of the batch before this rank's first: g of its first token, for dropout */
};

#endif
