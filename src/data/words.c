#include "data/words.h"

/* Bytes of the UTF-8 sequence at `s` of n bytes; 0: there is none. */
static int64_t sequence(const unsigned char *s, int64_t n) {
    int64_t length = s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;
    if (s[0] < 0x80) return 1;
    if (!length || n < length) return 0;
    for (int64_t i = 1; i < length; ++i)
        if ((s[i] & 0xC0) != 0x80) return 0;
    if (s[0] == 0xE0 && s[1] < 0xA0) return 0; /* too long a form */
    if (s[0] == 0xED && s[1] > 0x9F) return 0; /* surrogates */
    if (s[0] == 0xF0 && s[1] < 0x90) return 0;
    if (s[0] == 0xF4 && s[1] > 0x8F) return 0; /* above U+10FFFF */
    return length;
}

/* The first byte that is no UTF-8; n where all is. */
static int64_t first_bad(const unsigned char *s, int64_t n) {
    for (int64_t i = 0; i < n;) {
        uint64_t eight = 0;
        if (n - i >= 8) memcpy(&eight, s + i, 8);
        if (n - i >= 8 && !(eight & 0x8080808080808080u)) {
            i += 8;
            continue;
        }
        int64_t length = sequence(s + i, n - i);
        if (!length) return i;
        i += length;
    }
    return n;
}

enum status words_check(const char *bytes, int64_t n, int64_t start, const char *path) {
    const char *zero = n ? memchr(bytes, 0, (size_t)n) : NULL;
    if (zero)
        return status_fail(STATUS_DATA, "%s: byte %lld: expected text, found a zero", path,
                           (long long)(start + (zero - bytes)));
    for (const char *cr = bytes; n && (cr = memchr(cr, '\r', (size_t)(bytes + n - cr))); ++cr)
        if (cr + 1 < bytes + n && cr[1] == '\n')
            return status_fail(STATUS_DATA, "%s: byte %lld: expected lines ended by a line feed alone, found CRLF",
                               path, (long long)(start + (cr - bytes)));
    int64_t bad = first_bad((const unsigned char *)bytes, n);
    if (bad == n) return STATUS_OK;
    return status_fail(STATUS_DATA, "%s: byte %lld: expected UTF-8, found byte 0x%02X", path, (long long)(start + bad),
                       (unsigned char)bytes[bad]);
}
