/* A file that is whole or not there: written beside its place, renamed. */
#ifndef VQMOE_OUTPUT_H
#define VQMOE_OUTPUT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/status.h"

enum { OUTPUT_BUFFER = 1 << 16 };

struct output {
    char path[PATH_MAX], beside[PATH_MAX];
    int fd;
    int64_t used, bytes; /* in the buffer; in all */
    void *sum;           /* of XXH3, owned */
    char buffer[OUTPUT_BUFFER];
};

/* Opens folder/name.tmp. STATUS_WRITE, here and below, naming the file; output_end is called in any case. */
enum status output_begin(struct output *output, const char *folder, const char *name);
enum status output_write(struct output *output, const void *bytes, int64_t n);
/* Puts it to its place, or (status: of what it was written for) removes it; frees what is owned. *sum, unless NULL:
 * XXH3 of all bytes. Returns status where that is an error. A machine that fails before output_sync may lose bytes. */
enum status output_end(struct output *output, enum status status, uint64_t *sum);
/* Folder/name is on disk once the folder is synced too. */
enum status output_sync(const char *folder, const char *name);
/* Whether folder/name is there with these bytes: reads them. */
bool output_has(const char *folder, const char *name, uint64_t sum);

/* A whole file at once, synced with its folder. */
enum status output_file(const char *folder, const char *name, const void *bytes, int64_t n);

/* A few bytes that may be lost with the machine, but are not read as others: not synced, with a checksum. */
enum status output_note(const char *folder, const char *name, const void *bytes, int64_t n);
/* Whether such a note of n bytes is there; reads it. */
bool output_read_note(const char *folder, const char *name, void *bytes, int64_t n);

/* A few bytes. */
static inline enum status output_put(struct output *output, const void *bytes, int64_t n) {
    if (output->used + n > OUTPUT_BUFFER) return output_write(output, bytes, n);
    memcpy(output->buffer + output->used, bytes, (size_t)n);
    output->used += n;
    return STATUS_OK;
}

#endif
