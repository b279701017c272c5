/* Reads what snapshot.h wrote, and any HDF5 file of contiguous arrays. One rank reads the description and hands it to
 * the others; then each reads the rows it wants by itself. Where the file has checksums, whatever is read is checked.
 *
 * archive_open and archive_verify are collective, and agree; all else is for each rank alone: who needs the others to
 * know says so by comm_agree. Errors name file and object. */
#ifndef VQMOE_ARCHIVE_H
#define VQMOE_ARCHIVE_H

#include <stdbool.h>

#include "comm/comm.h"
#include "store/h5.h"

struct archive; /* opaque */

/* comm: as in snapshot_new. Here and wherever the file is read: STATUS_CHECKPOINT where it is not what it should be;
 * STATUS_INTERNAL where the system does not let it be read. */
enum status archive_open(struct archive **archive, const char *path, struct comm *comm);
void archive_close(struct archive *archive); /* NULL is fine */
const char *archive_path(const struct archive *archive);
/* All that is in it, /checksums too; owned by the archive. */
const struct h5_contents *archive_contents(const struct archive *archive);
bool archive_has_checksums(const struct archive *archive);
int64_t archive_slabs(const struct archive *archive); /* that have one */

/* NULL where there is none of that name. */
const struct h5_array *archive_find(const struct archive *archive, const char *name);
/* Rows [first, first + count) of axis 0 into out, as `type`: float types are converted. STATUS_CHECKPOINT: missing,
 * another shape (says both) or kind of values, cannot be read, or a checksum that does not fit. */
enum status archive_read(struct archive *archive, const char *name, enum h5_type type, int rank, const int64_t *shape,
                         int64_t first, int64_t count, void *out);
/* A missing attribute, or one of another kind: STATUS_CHECKPOINT. */
enum status archive_read_int(struct archive *archive, const char *name, int64_t *value);
enum status archive_read_real(struct archive *archive, const char *name, double *value);
enum status archive_read_text(struct archive *archive, const char *name, const char **value); /* the archive's */

/* Every byte of the file against its checksums, the ranks sharing the work, with a progress line: *bytes checked, over
 * all ranks. STATUS_CHECKPOINT: the first that does not fit, or there are no checksums. */
enum status archive_verify(struct archive *archive, int64_t *bytes);

#endif
