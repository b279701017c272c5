/* Between the files of h5.h. */
#ifndef VQMOE_H5_PRIVATE_H
#define VQMOE_H5_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>

#include "store/h5.h"

/* What a file may hold; a model of 255 layers has some 25 000 arrays. */
enum { H5_MOST_ARRAYS = 1 << 18, H5_MOST_ATTRIBUTES = 4096, H5_MOST_TEXT = 1 << 24 /* bytes of one attribute */ };

/* By HDF5, in this process; what is found there is not checked. STATUS_CHECKPOINT. */
enum status h5_walk(const char *path, struct h5_contents *contents);
/* What HDF5 said when its last call failed, in a few words. */
const char *h5_library_message(void);

/* Bytes of one element, and of one row of axis 0 (a scalar's: of its element). */
int64_t h5_element_bytes(enum h5_type type);
int64_t h5_row_bytes(const struct h5_array *array);

/* One stretch of memory and back; the caller frees it. false, and empty contents: no such stretch. */
char *h5_pack(const struct h5_contents *contents, size_t *bytes);
bool h5_unpack(struct h5_contents *contents, const char *packed, size_t bytes);

/* That all arrays lie within contents->bytes, apart from each other, with lengths that fit their shapes; sorts them by
 * name. STATUS_CHECKPOINT. */
enum status h5_check(const char *path, struct h5_contents *contents);

/* Makes room for `count` elements in a list that has `room`; ends the program where there is no memory. */
void *h5_grow(void *list, int64_t *room, int64_t count, size_t size);

#endif
