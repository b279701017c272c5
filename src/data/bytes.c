#include "data/bytes.h"

enum { IN_CACHE = 1 << 13, LINE_FEED = '\n' };

struct gaps bytes_gaps(const bool seen[256]) {
    struct gaps gaps = {0};
    for (int byte = 0; byte < 256; ++byte) {
        if (seen[byte]) continue;
        bool begins = byte == 0 || seen[byte - 1];
        if (begins) gaps.first[gaps.n++] = (uint8_t)byte;
        gaps.size[gaps.n - 1]++;
    }
    return gaps;
}

/* Whether any lies in a gap. */
static bool has_new(const uint8_t *bytes, int64_t n, const struct gaps *gaps) {
    uint8_t any = 0;
    for (int g = 0; g < gaps->n && !any; ++g) {
        uint8_t first = gaps->first[g], size = gaps->size[g];
        for (int64_t i = 0; i < n; ++i) any |= (uint8_t)(bytes[i] - first) < size;
    }
    return any;
}

void bytes_see(const uint8_t *bytes, int64_t n, bool seen[256]) {
    if (n <= 0) return;
    seen[bytes[0]] = true;
    struct gaps gaps = bytes_gaps(seen);
    for (int64_t at = 0; at < n; at += IN_CACHE) {
        int64_t count = n - at < IN_CACHE ? n - at : IN_CACHE;
        if (!has_new(bytes + at, count, &gaps)) continue;
        for (int64_t i = at; i < at + count; ++i) seen[bytes[i]] = true;
        gaps = bytes_gaps(seen);
    }
}

void bytes_close_gaps(uint8_t *bytes, int64_t n, const struct gaps *gaps) {
    for (int64_t at = 0; at < n; at += IN_CACHE) {
        int64_t count = n - at < IN_CACHE ? n - at : IN_CACHE;
        for (int g = gaps->n; g-- > 0;) { /* the highest first: what is above it stays above the others */
            uint8_t first = gaps->first[g], size = gaps->size[g];
            for (int64_t i = at; i < at + count; ++i) bytes[i] = (uint8_t)(bytes[i] - (bytes[i] > first ? size : 0));
        }
    }
}

int64_t bytes_drop_line_feeds(uint8_t *bytes, int64_t n) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; ++i) {
        uint8_t byte = bytes[i];
        bytes[kept] = byte;
        kept += byte != LINE_FEED;
    }
    return kept;
}
