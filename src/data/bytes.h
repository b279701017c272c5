/* Loops over all bytes of a text that compilers make vectors of. */
#ifndef VQMOE_BYTES_H
#define VQMOE_BYTES_H

#include <stdbool.h>
#include <stdint.h>

/* Stretches of byte values that do not occur, rising; a symbol is its byte less the gaps below it. */
struct gaps {
    int n;
    uint8_t first[128], size[128]; /* [n] */
};

/* At least one is seen. */
struct gaps bytes_gaps(const bool seen[256]);
/* Marks the values that occur in bytes [n]. */
void bytes_see(const uint8_t *bytes, int64_t n, bool seen[256]);
/* Bytes [n], none of them in a gap, become symbols. */
void bytes_close_gaps(uint8_t *bytes, int64_t n, const struct gaps *gaps);
/* Returns how many are left. */
int64_t bytes_drop_line_feeds(uint8_t *bytes, int64_t n);

#endif
