/* The one home of HDF5, for one process alone: what stands in a file, and where. HDF5 lays a file out and reads its
 * description; the bytes of arrays are moved by snapshot.h and archive.h, straight from and to their places in the
 * file. So a rank that dies, a full disk or a damaged file never meets HDF5 half-way, and no thread but the main one
 * calls it.
 */
#ifndef VQMOE_H5_H
#define VQMOE_H5_H

#include <stdint.h>

#include "base/status.h"

enum h5_type { H5T_FLOAT32, H5T_FLOAT64, H5T_INT64, H5T_UINT8, H5_TYPES }; /* little endian */
enum { H5_MAX_RANK = 4, H5_MAX_NAME = 128 };

/* Contiguous: row-major, one stretch of the file. */
struct h5_array {
    char name[H5_MAX_NAME]; /* path inside the file, "/parameters/layer.0.moe.w1" */
    enum h5_type type;
    int rank; /* 0: a scalar */
    int64_t shape[H5_MAX_RANK];
    int64_t bytes;  /* of all elements */
    int64_t offset; /* of the first byte in the file; -1 where bytes is 0 */
};

enum h5_value { H5_INTEGER, H5_REAL, H5_TEXT };
/* Of the root group. */
struct h5_attribute {
    char name[H5_MAX_NAME];
    enum h5_value kind;
    int64_t integer;
    double real;
    char *text; /* owned */
};

struct h5_contents {
    struct h5_array *arrays; /* owned, as attributes; by name, where it was read */
    int n_arrays;
    struct h5_attribute *attributes;
    int n_attributes;
    int64_t bytes; /* of the file */
};

/* Creates or truncates the file with all arrays and attributes, and closes it: it is whole but for the bytes of the
 * arrays, which are whatever the disk had. Groups are made as needed. Takes name, type, rank and shape of each array,
 * fills bytes and offset, and contents->bytes. STATUS_WRITE. */
enum status h5_create(const char *path, struct h5_contents *contents);

/* What is in a file that nobody has to trust: HDF5 reads it in a child process with limits on memory, time and files,
 * so that what crashes the library becomes a message. Only what h5_create writes is taken: hard links, contiguous
 * arrays of these types without filters and external storage, inside the file, none over another. Texts of fixed
 * and variable length both; other attributes (of arrays and groups too) are left. On failure contents is empty.
 * STATUS_CHECKPOINT: missing, not HDF5, damaged, truncated, hostile: says which object and what was found.
 * STATUS_INTERNAL: the system does not let it be read (permission, no process, a disk's error): nothing is known of it.
 */
enum status h5_read_contents(const char *path, struct h5_contents *contents);

void h5_contents_free(struct h5_contents *contents);

/* "1.10.8" */
const char *h5_library_version(void);

#endif
