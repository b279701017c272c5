/* Copies a checkpoint with NaN as the first number of one array: whole, as far as checksums tell. Usage: spoil FROM TO
 * ARRAY */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "store/archive.h"
#include "store/snapshot.h"

static void must(enum status status) {
    if (status) FATAL("%s", status_message());
}

static void copy_attributes(struct snapshot *to, const struct h5_contents *contents) {
    for (int i = 0; i < contents->n_attributes; ++i) {
        const struct h5_attribute *a = &contents->attributes[i];
        if (a->kind == H5_INTEGER) snapshot_put_int(to, a->name, a->integer);
        if (a->kind == H5_REAL) snapshot_put_real(to, a->name, a->real);
        if (a->kind == H5_TEXT) snapshot_put_text(to, a->name, a->text);
    }
}

int main(int argc, char **argv) {
    struct archive *from;
    if (argc != 4) FATAL("usage: spoil FROM TO ARRAY");
    must(archive_open(&from, argv[1], NULL));
    struct snapshot *to = snapshot_new(NULL);
    const struct h5_contents *contents = archive_contents(from);
    copy_attributes(to, contents);
    for (int i = 0; i < contents->n_arrays; ++i) {
        const struct h5_array *a = &contents->arrays[i];
        int64_t rows = a->rank ? a->shape[0] : 1;
        if (!strcmp(a->name, "/checksums")) continue;
        void *data = snapshot_put(to, a->name, a->type, a->rank, a->shape, 0, rows);
        must(archive_read(from, a->name, a->type, a->rank, a->shape, 0, rows, data));
        if (strcmp(a->name, argv[3]) != 0) continue;
        if (a->type == H5T_FLOAT32)
            *(float *)data = NAN;
        else
            *(double *)data = NAN;
    }
    must(snapshot_write(to, argv[2]));
    snapshot_free(to);
    archive_close(from);
    return 0;
}
