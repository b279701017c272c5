#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "store/h5_private.h"

void *h5_grow(void *list, int64_t *room, int64_t count, size_t size) {
    if (count <= *room) return list;
    *room = count + *room / 2 + 16;
    list = realloc(list, (size_t)*room * size);
    if (!list) FATAL("out of memory: %lld bytes", (long long)*room * (long long)size);
    return list;
}

int64_t h5_element_bytes(enum h5_type type) { return type == H5T_UINT8 ? 1 : type == H5T_FLOAT32 ? 4 : 8; }

int64_t h5_row_bytes(const struct h5_array *array) {
    int64_t bytes = h5_element_bytes(array->type);
    for (int i = 1; i < array->rank; ++i) bytes *= array->shape[i];
    return bytes;
}

void h5_contents_free(struct h5_contents *contents) {
    for (int i = 0; i < contents->n_attributes; ++i) free(contents->attributes[i].text);
    free(contents->attributes);
    free(contents->arrays);
    *contents = (struct h5_contents){0};
}

/* ---- As one stretch ---- */

struct packed_counts {
    int64_t arrays, attributes, bytes;
};
/* Its text follows. */
struct packed_attribute {
    char name[H5_MAX_NAME];
    int64_t kind, integer, length;
    double real;
};

char *h5_pack(const struct h5_contents *contents, size_t *bytes) {
    struct packed_counts counts = {contents->n_arrays, contents->n_attributes, contents->bytes};
    size_t arrays = (size_t)counts.arrays * sizeof *contents->arrays;
    *bytes = sizeof counts + arrays;
    for (int i = 0; i < contents->n_attributes; ++i) {
        const char *text = contents->attributes[i].text;
        *bytes += sizeof(struct packed_attribute) + (text ? strlen(text) : 0);
    }
    char *packed = malloc(*bytes), *at = packed;
    if (!packed) FATAL("out of memory");
    at = (char *)memcpy(at, &counts, sizeof counts) + sizeof counts;
    if (arrays) at = (char *)memcpy(at, contents->arrays, arrays) + arrays;
    for (int i = 0; i < contents->n_attributes; ++i) {
        const struct h5_attribute *a = &contents->attributes[i];
        struct packed_attribute one = {.kind = (int64_t)a->kind, .integer = a->integer, .real = a->real};
        memcpy(one.name, a->name, sizeof one.name);
        one.length = a->text ? (int64_t)strlen(a->text) : 0;
        at = (char *)memcpy(at, &one, sizeof one) + sizeof one;
        if (one.length) at = (char *)memcpy(at, a->text, (size_t)one.length) + one.length;
    }
    return packed;
}

/* The next `size` bytes; NULL where there are not so many. */
static const char *next(const char **at, const char *end, size_t size) {
    if ((size_t)(end - *at) < size) return NULL;
    *at += size;
    return *at - size;
}

static bool unpack_attributes(struct h5_contents *contents, int64_t count, const char *at, const char *end) {
    contents->attributes = calloc((size_t)count + 1, sizeof *contents->attributes);
    if (!contents->attributes) FATAL("out of memory");
    for (int64_t i = 0; i < count; ++i) {
        struct packed_attribute one;
        const char *from = next(&at, end, sizeof one), *text;
        if (!from) return false;
        memcpy(&one, from, sizeof one);
        one.name[H5_MAX_NAME - 1] = '\0';
        if (one.kind < H5_INTEGER || one.kind > H5_TEXT || one.length < 0 || one.length > H5_MOST_TEXT) return false;
        if (!(text = next(&at, end, (size_t)one.length))) return false;
        struct h5_attribute *a = &contents->attributes[contents->n_attributes++];
        *a = (struct h5_attribute){.kind = (enum h5_value)one.kind, .integer = one.integer, .real = one.real};
        memcpy(a->name, one.name, sizeof a->name);
        if (a->kind == H5_TEXT && !(a->text = strndup(text, (size_t)one.length))) FATAL("out of memory");
    }
    return at == end;
}

static bool unpack(struct h5_contents *contents, const char *packed, size_t bytes) {
    const char *at = packed, *end = packed + bytes;
    struct packed_counts counts;
    const char *from = next(&at, end, sizeof counts);
    if (!from) return false;
    memcpy(&counts, from, sizeof counts);
    if (counts.arrays < 0 || counts.arrays > H5_MOST_ARRAYS) return false;
    if (counts.attributes < 0 || counts.attributes > H5_MOST_ATTRIBUTES) return false;
    size_t arrays = (size_t)counts.arrays * sizeof *contents->arrays;
    if (!(from = next(&at, end, arrays))) return false;
    if (!(contents->arrays = malloc(arrays + 1))) FATAL("out of memory");
    memcpy(contents->arrays, from, arrays);
    contents->n_arrays = (int)counts.arrays;
    contents->bytes = counts.bytes;
    for (int i = 0; i < contents->n_arrays; ++i) contents->arrays[i].name[H5_MAX_NAME - 1] = '\0';
    return unpack_attributes(contents, counts.attributes, at, end);
}

bool h5_unpack(struct h5_contents *contents, const char *packed, size_t bytes) {
    *contents = (struct h5_contents){0};
    if (unpack(contents, packed, bytes)) return true;
    h5_contents_free(contents);
    return false;
}

/* ---- What may be ---- */

static enum status check_array(const char *path, const struct h5_array *array, int64_t file_bytes) {
    bool known = (unsigned)array->type < H5_TYPES;
    if (array->name[0] != '/' || !known || array->rank < 0 || array->rank > H5_MAX_RANK)
        return status_fail(STATUS_CHECKPOINT, "%s: expected arrays, found a description of something else", path);
    int64_t bytes = h5_element_bytes(array->type);
    for (int i = 0; i < array->rank; ++i)
        if (array->shape[i] < 0 || __builtin_mul_overflow(bytes, array->shape[i], &bytes))
            return status_fail(STATUS_CHECKPOINT, "%s: %s: expected fewer than 2^63 bytes, found more", path,
                               array->name);
    if (bytes != array->bytes || (bytes == 0) != (array->offset < 0))
        return status_fail(STATUS_CHECKPOINT, "%s: %s: expected %lld bytes, found %lld", path, array->name,
                           (long long)bytes, array->offset < 0 ? 0LL : (long long)array->bytes);
    if (bytes > 0 && (bytes > file_bytes || array->offset > file_bytes - bytes))
        return status_fail(STATUS_CHECKPOINT, "%s: %s: expected bytes of this file's %lld, found %lld from %lld on",
                           path, array->name, (long long)file_bytes, (long long)bytes, (long long)array->offset);
    return STATUS_OK;
}

static int by_offset(const void *a, const void *b) {
    int64_t x = ((const struct h5_array *)a)->offset, y = ((const struct h5_array *)b)->offset;
    return (x > y) - (x < y);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct h5_array *)a)->name, ((const struct h5_array *)b)->name);
}

enum status h5_check(const char *path, struct h5_contents *contents) {
    struct h5_array *arrays = contents->arrays;
    size_t n = (size_t)contents->n_arrays;
    for (size_t i = 0; i < n; ++i) TRY(check_array(path, &arrays[i], contents->bytes));
    if (n) qsort(arrays, n, sizeof *arrays, by_offset);
    for (size_t i = 1; i < n; ++i)
        if (arrays[i - 1].bytes && arrays[i - 1].offset + arrays[i - 1].bytes > arrays[i].offset)
            return status_fail(STATUS_CHECKPOINT, "%s: %s: expected bytes of its own, found those of %s", path,
                               arrays[i].name, arrays[i - 1].name);
    if (n) qsort(arrays, n, sizeof *arrays, by_name);
    return STATUS_OK;
}
