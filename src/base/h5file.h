/* The one home of HDF5: files of named global arrays and attributes, written and read in parallel by hyperslabs of the
 * first axis.
 *
 * Collective over the communicator given to h5file_create or h5file_open: every call of this header, by all its ranks
 * in the same order, also by ranks with nothing to write (count 0). Errors are recorded with status_fail and name file
 * and object; all ranks return the same one. After an error the file can only be closed; one that was being written
 * then stays open inside this process, so that it must be removed before it can be created again. */
#ifndef VQMOE_H5FILE_H
#define VQMOE_H5FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* In memory; a file may hold float32 where float64 is asked for and vice versa. */
enum h5type { H5T_FLOAT32, H5T_FLOAT64, H5T_INT64 };
enum { H5_MAX_RANK = 4, H5_MAX_NAME = 128 };

struct h5file; /* opaque */

/* mpi_comm: pointer to an MPI_Comm, or NULL for one process alone. Creates or truncates. STATUS_WRITE. */
enum status h5file_create(struct h5file **file, const char *path, const void *mpi_comm);
/* Read only. STATUS_CHECKPOINT: missing, not HDF5, truncated. */
enum status h5file_open(struct h5file **file, const char *path, const void *mpi_comm);
/* Flushes, closes, and for a created file fsyncs it on every rank; writing errors that show only here are returned.
 * NULL is fine. */
enum status h5file_close(struct h5file *file);
/* As given when it was opened. */
const char *h5file_path(const struct h5file *file);

/* name: path inside the file, "/parameters/layer.0.moe.w1"; groups are made as needed. shape: of the global array
 * [rank] (0 <= rank <= 4; rank 0: a scalar). This rank writes rows [first, first + count) of axis 0 from data,
 * contiguous; float types are stored as given. A further call with the same name and shape writes further rows. */
enum status h5file_write(struct h5file *file, const char *name, enum h5type type, int rank, const int64_t *shape,
                         int64_t first, int64_t count, const void *data);
/* Shape of an array; *rank = -1 and STATUS_OK where there is none of that name. */
enum status h5file_shape(struct h5file *file, const char *name, int *rank, int64_t *shape);
/* Rows [first, first + count) of axis 0 into data. STATUS_CHECKPOINT where the array is missing or its shape is not
 * `shape` (says both). */
enum status h5file_read(struct h5file *file, const char *name, enum h5type type, int rank, const int64_t *shape,
                        int64_t first, int64_t count, void *data);

/* Attributes of the root group. Writing: all ranks pass the same value. Reading a missing one: STATUS_CHECKPOINT. */
enum status h5file_write_int(struct h5file *file, const char *name, int64_t value);
enum status h5file_write_double(struct h5file *file, const char *name, double value);
enum status h5file_write_text(struct h5file *file, const char *name, const char *value);
enum status h5file_read_int(struct h5file *file, const char *name, int64_t *value);
enum status h5file_read_double(struct h5file *file, const char *name, double *value);
enum status h5file_read_text(struct h5file *file, const char *name, char **value); /* the caller frees */

/* Names of the arrays below a group, in creation or name order, depth first, as full paths; the caller frees the list
 * with free (one block). */
enum status h5file_list(struct h5file *file, const char *group, char (**names)[H5_MAX_NAME], int *count);

/* "1.10.8" */
const char *h5file_library_version(void);

#endif
