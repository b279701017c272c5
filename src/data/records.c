#include "data/records.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void records_free(struct records *records) {
    free(records->bytes);
    free(records->list);
    *records = (struct records){0};
}

enum status reserve(void **array, int64_t *room, int64_t needed, size_t element) {
    if (needed <= *room) return STATUS_OK;
    int64_t most = needed > 2 * *room ? needed : 2 * *room;
    void *grown = realloc(*array, (size_t)most * element);
    if (!grown) return status_fail(STATUS_INTERNAL, "out of memory: %lld bytes of texts", (long long)most);
    *array = grown;
    *room = most;
    return STATUS_OK;
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

void trim(const char **bytes, int64_t *size) {
    while (*size > 0 && is_space(**bytes)) ++*bytes, --*size;
    while (*size > 0 && is_space((*bytes)[*size - 1])) --*size;
}

struct shown shown_bytes(const char *bytes, int64_t size) {
    enum { MOST = 40 };
    struct shown shown;
    int64_t n = size < MOST ? size : MOST;
    while (n < size && n > 0 && (bytes[n] & 0xC0) == 0x80) --n; /* not within a letter */
    for (int64_t i = 0; i < n; ++i) shown.text[i] = (unsigned char)bytes[i] < ' ' || bytes[i] == 127 ? '?' : bytes[i];
    strcpy(shown.text + n, n < size ? "..." : "");
    return shown;
}

static int64_t put(struct records *records, const char *bytes, int64_t size) {
    int64_t at = records->used;
    memcpy(records->bytes + at, bytes, (size_t)size);
    records->bytes[at + size] = '\0';
    records->used += size + 1;
    return at;
}

enum status records_add(struct records *records, const char *text, int64_t size, const char *label, int64_t label_size,
                        const char *place) {
    int64_t place_size = (int64_t)strlen(place);
    trim(&text, &size);
    trim(&label, &label_size);
    if (size == 0) return status_fail(STATUS_DATA, "%s:%s: expected a text, found an empty one", records->path, place);
    if (label_size == 0) return status_fail(STATUS_DATA, "%s:%s: expected a label, found none", records->path, place);
    for (int64_t i = 0; i < label_size; ++i) /* names stand in lines and columns */
        if ((unsigned char)label[i] < ' ' || label[i] == 127)
            return status_fail(STATUS_DATA, "%s:%s: expected a label without control characters, found byte %d",
                               records->path, place, (unsigned char)label[i]);
    if (size > INT32_MAX)
        return status_fail(STATUS_DATA, "%s:%s: expected a text of at most %d bytes, found %lld", records->path, place,
                           INT32_MAX, (long long)size);
    int64_t needed = records->used + size + label_size + place_size + 3;
    TRY(reserve((void **)&records->bytes, &records->room, needed, 1));
    TRY(reserve((void **)&records->list, &records->list_room, records->count + 1, sizeof *records->list));
    struct record *record = &records->list[records->count++];
    record->size = size;
    record->text = put(records, text, size);
    record->label = put(records, label, label_size);
    record->place = put(records, place, place_size);
    return STATUS_OK;
}

/* ---- Files ---- */

static enum status read_open_file(const char *path, int fd, char **bytes, int64_t *size) {
    struct stat info;
    if (fstat(fd, &info) == 0 && S_ISDIR(info.st_mode))
        return status_fail(STATUS_DATA, "%s: expected a file, found a folder", path);
    int64_t room = 0, used = 0;
    ssize_t n;
    do {
        TRY(reserve((void **)bytes, &room, used + (info.st_size > used ? info.st_size - used : 0) + 4096, 1));
        n = read(fd, *bytes + used, (size_t)(room - used));
        if (n > 0) used += n;
    } while (n > 0 || (n < 0 && errno == EINTR));
    if (n < 0) return status_fail(STATUS_DATA, "%s: cannot read: %s", path, strerror(errno));
    if (used == 0) return status_fail(STATUS_DATA, "%s: expected text, found an empty file", path);
    *size = used;
    return STATUS_OK;
}

enum status file_read(const char *path, char **bytes, int64_t *size) {
    *bytes = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return status_fail(STATUS_DATA, "%s: expected a readable file, found: %s", path, strerror(errno));
    enum status status = read_open_file(path, fd, bytes, size);
    close(fd);
    if (status) {
        free(*bytes);
        *bytes = NULL;
    }
    return status;
}

/* Bytes of the letter at `at`; 0 where there is none: a byte out of place, too short, too long a form, a surrogate,
 * beyond U+10FFFF, or NUL. */
static int letter_size(const unsigned char *at, int64_t left) {
    static const uint32_t least[5] = {0, 1, 0x80, 0x800, 0x10000};
    if (at[0] < 0x80) return at[0] != 0;
    int n = at[0] >= 0xF8 ? 0 : at[0] >= 0xF0 ? 4 : at[0] >= 0xE0 ? 3 : at[0] >= 0xC0 ? 2 : 0;
    if (n == 0 || n > left) return 0;
    uint32_t letter = at[0] & (0xFFu >> (n + 1));
    for (int i = 1; i < n; ++i) {
        if ((at[i] & 0xC0) != 0x80) return 0;
        letter = letter << 6 | (at[i] & 0x3Fu);
    }
    return letter < least[n] || letter > 0x10FFFF || (letter >= 0xD800 && letter < 0xE000) ? 0 : n;
}

enum status utf8_check(const char *path, const char *bytes, int64_t size) {
    const unsigned char *at = (const unsigned char *)bytes;
    long long line = 1;
    for (int64_t i = 0; i < size;) {
        int n = letter_size(at + i, size - i);
        if (n == 0 && at[i] == 0)
            return status_fail(STATUS_DATA, "%s:%lld: expected UTF-8 text, found a NUL byte", path, line);
        if (n == 0)
            return status_fail(STATUS_DATA, "%s:%lld: expected UTF-8 text, found byte 0x%02X out of place", path, line,
                               at[i]);
        line += at[i] == '\n';
        i += n;
    }
    return STATUS_OK;
}

enum status records_parse(struct records *records, const char *bytes, int64_t size, const struct config *config,
                          const char *part) {
    static const char mark[] = "\xEF\xBB\xBF"; /* of some spreadsheets */
    if (config->data.kind == DATA_IMDB) return records_imdb_archive(records, bytes, size, part);
    TRY(utf8_check(records->path, bytes, size));
    int64_t skip = size >= 3 && memcmp(bytes, mark, 3) == 0 ? 3 : 0;
    bytes += skip;
    size -= skip;
    if (config->data.kind == DATA_CSV) TRY(records_csv(records, bytes, size, config));
    if (config->data.kind == DATA_TSV) TRY(records_tsv(records, bytes, size, config));
    if (config->data.kind == DATA_TREES) TRY(records_trees(records, bytes, size));
    if (records->count == 0) return status_fail(STATUS_DATA, "%s: expected labelled texts, found none", records->path);
    return STATUS_OK;
}
