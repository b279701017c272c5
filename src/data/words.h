/* Text of words: lines, and words between white space. */
#ifndef VQMOE_WORDS_H
#define VQMOE_WORDS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/status.h"

/* White space within a line, as C and Python have it for bytes: space, tab, VT, FF, CR. */
static inline bool words_is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r' && c != '\n'); }

/* The next word in [*at, end), a line without its line feed: *at stands behind it then. NULL: no more. */
static inline const char *words_next(const char **at, const char *end, int64_t *length) {
    const char *from = *at;
    while (from < end && words_is_white(*from)) ++from;
    const char *to = from;
    while (to < end && !words_is_white(*to)) ++to;
    *at = to;
    *length = to - from;
    return from < to ? from : NULL;
}

/* Whether bytes are UTF-8 without zeros and CRLF. STATUS_DATA: names the file, the byte (the first is number `start`)
 * and what was found. */
enum status words_check(const char *bytes, int64_t n, int64_t start, const char *path);

#endif
