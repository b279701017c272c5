#include "store/slabs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/log.h"
#include "store/h5_private.h"

static int by_offset(const void *a, const void *b) {
    const struct h5_array *const *x = a, *const *y = b;
    return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

/* Those that have bytes, in the order of the file, and a NULL; the caller frees it. */
static const struct h5_array **in_file_order(const struct h5_contents *contents) {
    const struct h5_array **list = malloc((size_t)(contents->n_arrays + 1) * sizeof *list);
    size_t n = 0;
    if (!list) FATAL("out of memory");
    for (int i = 0; i < contents->n_arrays; ++i)
        if (contents->arrays[i].bytes) list[n++] = &contents->arrays[i];
    if (n) qsort(list, n, sizeof *list, by_offset);
    list[n] = NULL;
    return list;
}

static int sum_stretch(int fd, int64_t from, int64_t to, XXH3_state_t *state) {
    char piece[16384];
    while (from < to) {
        int64_t want = to - from < (int64_t)sizeof piece ? to - from : (int64_t)sizeof piece;
        ssize_t got = pread(fd, piece, (size_t)want, from);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got < 0 ? errno : ENODATA;
        XXH3_64bits_update(state, piece, (size_t)got);
        from += got;
    }
    return 0;
}

int slabs_sum_rest(int fd, const struct h5_contents *contents, struct slab *rest) {
    const struct h5_array **arrays = in_file_order(contents);
    XXH3_state_t *state = XXH3_createState();
    int64_t at = 0;
    int cause = 0;
    if (!state) FATAL("out of memory");
    XXH3_64bits_reset(state);
    *rest = (struct slab){.offset = -1};
    for (int i = 0; !cause && at < contents->bytes; ++i) {
        int64_t end = arrays[i] ? arrays[i]->offset : contents->bytes;
        cause = sum_stretch(fd, at, end, state);
        rest->bytes += end - at;
        at = arrays[i] ? end + arrays[i]->bytes : end;
    }
    rest->sum = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    free(arrays);
    return cause;
}

static int by_place(const void *a, const void *b) {
    const struct slab *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Those from slabs[*at] on that fill the array; *at moves on. */
static bool fill_array(const struct h5_array *array, const struct slab *slabs, int64_t n, int64_t *at) {
    int64_t from = array->offset, end = from + array->bytes;
    for (; from < end && *at < n; ++*at) {
        const struct slab *slab = &slabs[*at];
        bool fits = slab->offset == from && slab->bytes > 0 && slab->bytes <= end - from &&
                    slab->bytes % h5_element_bytes(array->type) == 0;
        if (!fits) return false;
        from += slab->bytes;
    }
    return from == end;
}

enum status slabs_check(const char *path, const struct h5_contents *contents, struct slab *slabs, int64_t n) {
    const struct h5_array **arrays = in_file_order(contents);
    enum status status = STATUS_OK;
    int64_t at = 0;
    if (n) qsort(slabs, (size_t)n, sizeof *slabs, by_place);
    for (int i = 0; arrays[i] && !status; ++i)
        if (strcmp(arrays[i]->name, SLABS_NAME) != 0 && !fill_array(arrays[i], slabs, n, &at))
            status = status_fail(STATUS_CHECKPOINT, "%s: " SLABS_NAME ": expected slabs that cover %s, found others",
                                 path, arrays[i]->name);
    if (!status && at < n)
        status = status_fail(STATUS_CHECKPOINT, "%s: " SLABS_NAME ": expected slabs of arrays, found one from %lld on",
                             path, (long long)slabs[at].offset);
    free(arrays);
    return status;
}
