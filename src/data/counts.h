/* How often words occur: of one piece in memory, then sorted in a file, then those of all files merged; so memory holds
 * one piece's words, and the vocabulary, whatever the corpus. */
#ifndef VQMOE_COUNTS_H
#define VQMOE_COUNTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "data/output.h"

struct counts; /* opaque */

struct counts *counts_new(void); /* never NULL */
void counts_free(struct counts *counts);
/* All words of a piece's lines, which stay where they are as long as the counts are used. */
void counts_add(struct counts *counts, const char *bytes, int64_t n);
/* Sorted by word, into a file for counts_merge. STATUS_WRITE. */
enum status counts_write(struct counts *counts, struct output *output);

/* The words of files [n], in the order of the text, that occur at least min_count times, but for those of `except`
 * (NULL at its end), a line each: by falling count, of equal counts the one that occurred first. The caller frees
 * *lines
 * [*length]. STATUS_DATA: a file is not as it was written. */
enum status counts_merge(const char *const *paths, int64_t n, int64_t min_count, const char *const *except,
                         char **lines, int64_t *length);

#endif
