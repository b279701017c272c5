/* The Large Movie Review Dataset: {train,test}/{neg,pos}/ID_RATING.txt, in its tar.gz or unpacked. */
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/records.h"

static const char *const labels[2] = {"neg", "pos"};

/* Where a review's number stands in "train/pos/12_9.txt". */
static const char *number_of(const char *place) { return strrchr(place, '/') + 1; }

/* "12_9.txt" */
static bool is_review(const char *name) {
    size_t number = strspn(name, "0123456789");
    if (number < 1 || number > 9 || name[number] != '_') return false;
    size_t rating = strspn(name + number + 1, "0123456789");
    return (rating == 1 || rating == 2) && !strcmp(name + number + 1 + rating, ".txt");
}

/* The label of a member in PART/neg or PART/pos of any folder, and its path from PART on; NULL for all others, and for
 * hidden files (macOS adds "._x"). */
static const char *label_of(const char *path, const char *part, const char **place) {
    size_t size = strlen(part);
    const char *name = strrchr(path, '/');
    if (!name || name[1] == '.' || (size_t)(name - path) < size + 4) return NULL;
    *place = name - 4 - size;
    if (*place > path && (*place)[-1] != '/') return NULL;
    if (memcmp(*place, part, size) != 0 || (*place)[size] != '/') return NULL;
    for (int i = 0; i < 2; ++i)
        if (!memcmp(name - 3, labels[i], 3)) return labels[i];
    return NULL;
}

static enum status add_review(struct records *records, const char *place, const char *label, const char *bytes,
                              int64_t size) {
    char path[PATH_MAX];
    if (!is_review(number_of(place)))
        return status_fail(STATUS_DATA, "%s:%s: expected a name like 12_9.txt, number and rating", records->path,
                           shown_bytes(place, (int64_t)strlen(place)).text);
    snprintf(path, sizeof path, "%s:%s", records->path, place);
    TRY(utf8_check(path, bytes, size));
    return records_add(records, bytes, size, label, 3, place);
}

/* ---- Order ---- */

static int compare(const void *a, const void *b, void *bytes) {
    const struct record *x = a, *y = b;
    int by_label = strcmp((char *)bytes + x->label, (char *)bytes + y->label);
    if (by_label) return by_label;
    long i = strtol(number_of((char *)bytes + x->place), NULL, 10);
    long j = strtol(number_of((char *)bytes + y->place), NULL, 10);
    return (i > j) - (i < j);
}

/* A part is there with both classes or (test) not at all. */
static enum status put_in_order(struct records *records, const char *part) {
    struct record *list = records->list;
    bool has[2] = {false, false};
    if (records->count) qsort_r(list, (size_t)records->count, sizeof *list, compare, records->bytes);
    for (int64_t i = 0; i < records->count; ++i) {
        has[!strcmp(records->bytes + list[i].label, labels[1])] = true;
        if (i > 0 && compare(&list[i - 1], &list[i], records->bytes) == 0)
            return status_fail(STATUS_DATA, "%s: expected one review of each number, found %s and %s", records->path,
                               records->bytes + list[i - 1].place, records->bytes + list[i].place);
    }
    for (int i = 0; i < 2; ++i)
        if (!has[i] && (has[!i] || !strcmp(part, "train")))
            return status_fail(STATUS_DATA, "%s: expected reviews in %s/%s, found none", records->path, part,
                               labels[i]);
    return STATUS_OK;
}

/* ---- Archive ---- */

static enum status archive_wrong(const struct records *records, struct archive *archive, const char *member) {
    const char *found = archive_error_string(archive);
    if (!found) found = "unreadable";
    return status_fail(STATUS_DATA, "%s:%s: expected a whole tar.gz, found: %s", records->path,
                       shown_bytes(member, (int64_t)strlen(member)).text,
                       shown_bytes(found, (int64_t)strlen(found)).text);
}

struct buffer {
    char *bytes;
    int64_t used, room;
};

/* Blocks lie side by side: a sparse member could claim any size. */
static enum status read_member(const struct records *records, struct archive *archive, const char *member,
                               struct buffer *buffer) {
    const void *block;
    size_t size;
    int64_t at;
    int result;
    buffer->used = 0;
    while ((result = archive_read_data_block(archive, &block, &size, &at)) == ARCHIVE_OK) {
        if (size == 0) continue;
        if (at != buffer->used)
            return status_fail(STATUS_DATA, "%s:%s: expected a plain file, found a sparse one", records->path, member);
        TRY(reserve((void **)&buffer->bytes, &buffer->room, buffer->used + (int64_t)size, 1));
        memcpy(buffer->bytes + buffer->used, block, size);
        buffer->used += (int64_t)size;
    }
    return result == ARCHIVE_EOF ? STATUS_OK : archive_wrong(records, archive, member);
}

static enum status read_members(struct records *records, struct archive *archive, const char *part,
                                struct buffer *buffer) {
    char member[256] = "beginning";
    struct archive_entry *entry;
    int result;
    while ((result = archive_read_next_header(archive, &entry)) == ARCHIVE_OK || result == ARCHIVE_WARN) {
        const char *path = archive_entry_pathname(entry), *place;
        const char *label = path && archive_entry_filetype(entry) == AE_IFREG ? label_of(path, part, &place) : NULL;
        if (!label) continue;
        snprintf(member, sizeof member, "%s", place);
        TRY(read_member(records, archive, member, buffer));
        TRY(add_review(records, member, label, buffer->bytes, buffer->used));
    }
    return result == ARCHIVE_EOF ? STATUS_OK : archive_wrong(records, archive, member);
}

enum status records_imdb_archive(struct records *records, const char *bytes, int64_t size, const char *part) {
    struct archive *archive = archive_read_new();
    struct buffer buffer = {0};
    if (!archive) return status_fail(STATUS_INTERNAL, "%s: out of memory", records->path);
    archive_read_support_filter_gzip(archive);
    archive_read_support_format_tar(archive);
    enum status status = STATUS_OK;
    if (archive_read_open_memory(archive, bytes, (size_t)size)) status = archive_wrong(records, archive, "beginning");
    if (!status) status = read_members(records, archive, part, &buffer);
    archive_read_free(archive);
    free(buffer.bytes);
    return status ? status : put_in_order(records, part);
}

/* ---- Folder ---- */

static enum status read_class(struct records *records, DIR *folder, const char *within, const char *label) {
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[PATH_MAX], place[PATH_MAX], *bytes;
        int64_t size;
        if (entry->d_name[0] == '.') continue;
        if (snprintf(place, sizeof place, "%s/%s", within, entry->d_name) >= PATH_MAX ||
            snprintf(path, sizeof path, "%s/%s", records->path, place) >= PATH_MAX)
            return status_fail(STATUS_DATA, "%s/%s: expected a shorter path", records->path, within);
        TRY(file_read(path, &bytes, &size));
        enum status status = add_review(records, place, label, bytes, size);
        free(bytes);
        TRY(status);
    }
    return STATUS_OK;
}

enum status records_imdb_folder(struct records *records, const char *part) {
    for (int i = 0; i < 2; ++i) {
        char within[16], path[PATH_MAX];
        snprintf(within, sizeof within, "%s/%s", part, labels[i]);
        snprintf(path, sizeof path, "%s/%s", records->path, within);
        DIR *folder = opendir(path);
        if (!folder && errno == ENOENT) continue;
        if (!folder)
            return status_fail(STATUS_DATA, "%s: expected a readable folder, found: %s", path, strerror(errno));
        enum status status = read_class(records, folder, within, labels[i]);
        closedir(folder);
        TRY(status);
    }
    return put_in_order(records, part);
}
