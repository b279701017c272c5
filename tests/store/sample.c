#include "sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/block.h"
#include "base/hash.h"
#include "base/log.h"

const struct sample_array sample_arrays[SAMPLE_ARRAYS] = {
    {"/b/deep/values", H5T_FLOAT32, 2, {6, 5, 0, 0}},
    {"/b/scalar", H5T_FLOAT64, 0, {0}},
    {"/whole", H5T_INT64, 1, {3, 0, 0, 0}},
    {"/empty", H5T_FLOAT32, 2, {0, 4, 0, 0}},
    {"/hollow", H5T_FLOAT32, 3, {4, 0, 3, 0}},
    {"/long", H5T_FLOAT32, 2, {70001, 9, 0, 0}},  /* slabs that are no whole number of an array */
    {"/wide", H5T_FLOAT64, 2, {3, 150001, 0, 0}}, /* a row is more than 1 MiB */
    {"/b/four", H5T_FLOAT32, 4, {5, 2, 3, 2}},
    {"/integers", H5T_INT64, 2, {40000, 5, 0, 0}},
};

static int64_t value_of(int array, int64_t index, int seed) {
    return (int64_t)(hash_splitmix64((uint64_t)index * 31 + (uint64_t)(array + 100 * seed)) % 2000003) - 1000000;
}

static int64_t row_elements(const struct sample_array *a) {
    int64_t elements = 1;
    for (int axis = 1; axis < a->rank; ++axis) elements *= a->shape[axis];
    return elements;
}

void sample_part(int array, int part, int parts, int64_t *first, int64_t *count) {
    const struct sample_array *a = &sample_arrays[array];
    int64_t rows = a->rank ? a->shape[0] : 1, turned = (part + array) % parts;
    *first = block_first(rows, parts, turned);
    *count = block_count(rows, parts, turned);
}

static void fill(void *at, enum h5_type type, int array, int64_t from, int64_t n, int seed) {
    for (int64_t i = 0; i < n; ++i) {
        int64_t value = value_of(array, from + i, seed);
        if (type == H5T_FLOAT32) ((float *)at)[i] = (float)value;
        if (type == H5T_FLOAT64) ((double *)at)[i] = (double)value;
        if (type == H5T_INT64) ((int64_t *)at)[i] = value;
    }
}

/* In two calls: rows may come in any number of them. */
void sample_put(struct snapshot *snapshot, int part, int parts, int seed) {
    snapshot_put_int(snapshot, "step", 1234567890123 + seed);
    snapshot_put_real(snapshot, "best", 1.25);
    snapshot_put_text(snapshot, "configuration", "{\"caf\xc3\xa9\": 1}");
    snapshot_put_text(snapshot, "nothing", "");
    for (int half = 0; half < 2; ++half)
        for (int i = 0; i < SAMPLE_ARRAYS; ++i) {
            const struct sample_array *a = &sample_arrays[i];
            int64_t first, count, row = row_elements(a);
            sample_part(i, part, parts, &first, &count);
            first += half ? count / 3 : 0;
            count = half ? count - count / 3 : count / 3;
            fill(snapshot_put(snapshot, a->name, a->type, a->rank, a->shape, first, count), a->type, i, first * row,
                 count * row, seed);
        }
}

static enum h5_type other(enum h5_type type) {
    return type == H5T_FLOAT32 ? H5T_FLOAT64 : type == H5T_FLOAT64 ? H5T_FLOAT32 : H5T_INT64;
}

const char *sample_check(struct archive *archive, int part, int parts, int seed, bool other_width) {
    static char wrong[1200];
    for (int i = 0; i < SAMPLE_ARRAYS; ++i) {
        const struct sample_array *a = &sample_arrays[i];
        enum h5_type type = other_width ? other(a->type) : a->type;
        int64_t first, count, row = row_elements(a);
        sample_part(i, part, parts, &first, &count);
        size_t bytes = (size_t)(count * row) * (type == H5T_FLOAT32 ? 4 : 8);
        char *found = calloc(bytes + 2, 1), *expected = malloc(bytes + 1);
        if (!found || !expected) FATAL("out of memory");
        found[bytes] = 42;
        fill(expected, type, i, first * row, count * row, seed);
        enum status status = archive_read(archive, a->name, type, a->rank, a->shape, first, count, found);
        bool same = !memcmp(found, expected, bytes) && found[bytes] == 42;
        free(found);
        free(expected);
        if (!status && same) continue;
        snprintf(wrong, sizeof wrong, "%s: part %d of %d: %s", a->name, part, parts,
                 status ? status_message() : "other values");
        return wrong;
    }
    return NULL;
}

char *sample_bytes(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) FATAL("%s: cannot read", path);
    *size = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*size + 1);
    if (!bytes || fread(bytes, 1, *size, file) != *size) FATAL("%s: cannot read", path);
    fclose(file);
    return bytes;
}
