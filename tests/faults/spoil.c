/* spoil FROM TO ARRAY: the same checkpoint with fitting checksums, but the first value of an array is NaN. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "store/archive.h"
#include "store/snapshot.h"

static void put_attribute(struct snapshot *to, const struct h5_attribute *a) {
    if (a->kind == H5_INTEGER) snapshot_put_int(to, a->name, a->integer);
    if (a->kind == H5_REAL) snapshot_put_real(to, a->name, a->real);
    if (a->kind == H5_TEXT) snapshot_put_text(to, a->name, a->text);
}

static enum status put_array(struct snapshot *to, struct archive *from, const struct h5_array *a, bool spoil) {
    if (!strcmp(a->name, "/checksums")) return STATUS_OK;
    int64_t rows = a->rank ? a->shape[0] : 1;
    void *data = snapshot_put(to, a->name, a->type, a->rank, a->shape, 0, rows);
    TRY(archive_read(from, a->name, a->type, a->rank, a->shape, 0, rows, data));
    if (spoil && a->type == H5T_FLOAT32) *(float *)data = NAN;
    if (spoil && a->type == H5T_FLOAT64) *(double *)data = NAN;
    return STATUS_OK;
}

int main(int argc, char **argv) {
    struct archive *from = NULL;
    struct snapshot *to = snapshot_new(NULL);
    enum status status = argc == 4 ? archive_open(&from, argv[1], NULL) : STATUS_CONFIG;
    const struct h5_contents *contents = from ? archive_contents(from) : NULL;
    for (int i = 0; contents && i < contents->n_attributes; ++i) put_attribute(to, &contents->attributes[i]);
    for (int i = 0; contents && i < contents->n_arrays && !status; ++i)
        status = put_array(to, from, &contents->arrays[i], !strcmp(contents->arrays[i].name, argv[3]));
    if (!status && !archive_find(from, argv[3])) status = status_fail(STATUS_CHECKPOINT, "no array %s", argv[3]);
    if (!status) status = snapshot_write(to, argv[2]);
    if (status) fprintf(stderr, "spoil: %s\n", status_message());
    snapshot_free(to);
    archive_close(from);
    return status;
}
