#include <string.h>

#include "base/log.h"
#include "data/text.h"

enum status streams_init(struct streams *streams, const struct text *text, enum split split, int64_t rows,
                         int64_t segment, int keep_last) {
    const struct text_split *source = &text->splits[split];
    int64_t least = keep_last ? 2 : segment + 1; /* symbols of a stream: the last one is only predicted */
    int64_t length = source->symbols / rows;
    if (length < least)
        return status_fail(STATUS_DATA,
                           "%s: too short for %s: expected at least %lld symbols (%lld rows of %lld), found %lld",
                           source->path[0] ? source->path : "data.test", split_names[split], (long long)(rows * least),
                           (long long)rows, (long long)least, (long long)source->symbols);
    int64_t segments = (length - 1) / segment;
    if (keep_last && (length - 1) % segment) segments++;
    *streams = (struct streams){text, split, rows, length, segment, segments};
    return STATUS_OK;
}

enum status streams_read(const struct streams *streams, int64_t i, int64_t first, int64_t count, int32_t *tokens,
                         int32_t *targets, int64_t *width) {
    CHECK(i >= 0 && i < streams->segments && first >= 0 && count >= 0 && first + count <= streams->rows);
    int64_t begin = i * streams->segment, T = streams->length - 1 - begin;
    if (T > streams->segment) T = streams->segment;
    if (width) *width = T;
    for (int64_t row = 0; row < count; row++) {
        int64_t from = (first + row) * streams->length + begin;
        TRY(text_read(streams->text, streams->split, from, 1, &tokens[row * T]));
        TRY(text_read(streams->text, streams->split, from + 1, T, &targets[row * T]));
        memcpy(&tokens[row * T + 1], &targets[row * T], (size_t)(T - 1) * sizeof *tokens);
    }
    return STATUS_OK;
}
