#include "data/stream.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

enum {
    BLOCK = 1 << 16,
    ARCHIVE_BLOCK = 1 << 20,
    MOST_LINE = 1 << 24, /* bytes of a line that reaches beyond its piece */
    LINE_FEED = '\n'
};

struct stream {
    const char *path;        /* the caller's */
    struct archive *archive; /* NULL: a plain file, */
    int fd;                  /* this one */
    bool met;                /* the plain file was given as a member */
    int64_t bytes;           /* of the member */
    int64_t at;              /* place in it of the next byte */
    char *carried;           /* [BLOCK]: bytes that were read already, owned */
    int64_t begin, end;      /* of them */
};

static enum status cannot_read(const struct stream *s, const char *why) {
    return status_fail(STATUS_DATA, "%s: cannot read: %s", s->path, why);
}

enum status stream_is_archive(const char *path, bool *is_archive) {
    unsigned char begin[4] = {0};
    struct stat info;
    struct stream named = {.path = path};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return cannot_read(&named, strerror(errno));
    bool good = fstat(fd, &info) == 0 && read(fd, begin, sizeof begin) >= 0;
    int cause = errno;
    close(fd);
    if (!good) return cannot_read(&named, strerror(cause));
    if (!S_ISREG(info.st_mode)) return status_fail(STATUS_DATA, "%s: expected a file, found a device", path);
    *is_archive = !memcmp(begin, "PK\3\4", 4) || !memcmp(begin, "\x1f\x8b", 2);
    return STATUS_OK;
}

static enum status open_archive(struct stream *s) {
    s->archive = archive_read_new();
    if (!s->archive) FATAL("out of memory");
    archive_read_support_format_tar(s->archive);
    archive_read_support_format_zip(s->archive);
    archive_read_support_filter_gzip(s->archive);
    if (archive_read_open_filename(s->archive, s->path, ARCHIVE_BLOCK) == ARCHIVE_OK) return STATUS_OK;
    return cannot_read(s, archive_error_string(s->archive));
}

enum status stream_open(struct stream **stream, const char *path, bool archive) {
    struct stream *s = calloc(1, sizeof *s);
    if (!s || !(s->carried = malloc(BLOCK))) FATAL("out of memory");
    *stream = s;
    s->path = path;
    s->fd = -1;
    if (archive) return open_archive(s);
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    return s->fd < 0 ? cannot_read(s, strerror(errno)) : STATUS_OK;
}

void stream_close(struct stream *s) {
    if (!s) return;
    if (s->archive) archive_read_free(s->archive);
    if (s->fd >= 0) close(s->fd);
    free(s->carried);
    free(s);
}

static enum status next_file(struct stream *s, const char **name, int64_t *bytes) {
    struct stat info;
    *name = s->met ? NULL : s->path;
    if (s->met) return STATUS_OK;
    s->met = true;
    if (fstat(s->fd, &info)) return cannot_read(s, strerror(errno));
    s->bytes = *bytes = info.st_size;
    return STATUS_OK;
}

enum status stream_next(struct stream *s, const char **name, int64_t *bytes) {
    struct archive_entry *entry;
    if (!s->archive) return next_file(s, name, bytes);
    do {
        int result = archive_read_next_header(s->archive, &entry);
        *name = NULL;
        if (result == ARCHIVE_EOF) return STATUS_OK;
        if (result != ARCHIVE_OK) return cannot_read(s, archive_error_string(s->archive));
    } while (archive_entry_filetype(entry) != AE_IFREG);
    *name = archive_entry_pathname(entry);
    if (!*name || !archive_entry_size_is_set(entry))
        return status_fail(STATUS_DATA, "%s: expected members with names and sizes, found one without", s->path);
    s->bytes = *bytes = archive_entry_size(entry);
    s->at = s->begin = s->end = 0;
    return STATUS_OK;
}

void load_free(struct load *load) {
    free(load->bytes);
    *load = (struct load){0};
}

/* Up to n bytes; *got is 0 at the end of the member alone. */
static enum status read_some(struct stream *s, char *to, int64_t n, int64_t *got) {
    *got = s->end - s->begin < n ? s->end - s->begin : n;
    if (*got) {
        memcpy(to, s->carried + s->begin, (size_t)*got);
        s->begin += *got;
    } else {
        do *got = s->archive ? archive_read_data(s->archive, to, (size_t)n) : read(s->fd, to, (size_t)n);
        while (*got < 0 && !s->archive && errno == EINTR);
    }
    if (*got < 0) return cannot_read(s, s->archive ? archive_error_string(s->archive) : strerror(errno));
    if (*got == 0 && n && s->at < s->bytes)
        return status_fail(STATUS_DATA, "%s: expected %lld bytes, found the end after %lld", s->path,
                           (long long)s->bytes, (long long)s->at);
    s->at += *got;
    return STATUS_OK;
}

/* Bytes that are carried on to the next piece. */
static enum status carry(struct stream *s) {
    int64_t got;
    if (s->begin < s->end) return STATUS_OK;
    s->begin = s->end = 0;
    TRY(read_some(s, s->carried, BLOCK, &got));
    s->end = got;
    s->at -= got;
    return STATUS_OK;
}

/* To place `to`, or the end. */
static enum status skip(struct stream *s, int64_t to) {
    if (!s->archive && s->at < to) {
        s->begin = s->end = 0;
        if (lseek(s->fd, to, SEEK_SET) < 0) return cannot_read(s, strerror(errno));
        s->at = to;
    }
    while (s->at < to && s->at < s->bytes) {
        TRY(carry(s));
        int64_t n = s->end - s->begin < to - s->at ? s->end - s->begin : to - s->at;
        s->begin += n;
        s->at += n;
    }
    return STATUS_OK;
}

static void reserve(struct load *load, int64_t room) {
    if (room <= load->room) return;
    load->room = room;
    if (!(load->bytes = realloc(load->bytes, (size_t)room))) FATAL("out of memory");
}

/* Appends up to and with the next line feed; without a load these bytes are left out. */
static enum status take_line(struct stream *s, struct load *load) {
    for (int64_t taken = 0; s->at < s->bytes;) {
        TRY(carry(s));
        char *from = s->carried + s->begin, *feed = memchr(from, LINE_FEED, (size_t)(s->end - s->begin));
        int64_t n = feed ? feed - from + 1 : s->end - s->begin;
        if ((taken += n) > MOST_LINE)
            return status_fail(STATUS_DATA, "%s: byte %lld: expected lines of at most %d bytes, found a longer one",
                               s->path, (long long)s->at, MOST_LINE);
        if (load) {
            reserve(load, load->size + n);
            memcpy(load->bytes + load->size, from, (size_t)n);
            load->size += n;
        }
        s->begin += n;
        s->at += n;
        if (feed) return STATUS_OK;
    }
    return STATUS_OK;
}

enum status stream_next_block(struct load *load, bool *more) {
    struct stream *s = load->stream;
    int64_t n = s && load->to - s->at < STREAM_BLOCK ? load->to - s->at : STREAM_BLOCK, got;
    *more = s && n > 0;
    if (!*more) return STATUS_OK;
    load->start = s->at;
    for (load->size = 0; load->size < n; load->size += got)
        TRY(read_some(s, load->bytes + load->size, n - load->size, &got));
    return STATUS_OK;
}

enum status stream_blocks(struct stream *s, int64_t from, int64_t to, struct load *load) {
    bool more;
    TRY(skip(s, from));
    reserve(load, STREAM_BLOCK);
    load->stream = s;
    load->to = to;
    return stream_next_block(load, &more);
}

enum status stream_piece(struct stream *s, int64_t from, int64_t to, bool lines, struct load *load) {
    load->size = 0;
    load->stream = NULL;
    if (s->at < from) { /* else the last line of the piece before ends here */
        TRY(skip(s, lines && from ? from - 1 : from));
        if (lines && from) TRY(take_line(s, NULL));
    }
    load->start = s->at;
    if (s->at >= to) return STATUS_OK;
    reserve(load, to - s->at + BLOCK);
    for (int64_t got; s->at < to && s->at < s->bytes; load->size += got)
        TRY(read_some(s, load->bytes + load->size, to - s->at, &got));
    if (lines && load->size && load->bytes[load->size - 1] != LINE_FEED) TRY(take_line(s, load));
    if (lines && load->size && load->bytes[load->size - 1] != LINE_FEED)
        return status_fail(STATUS_DATA, "%s: expected a line feed at the end, found none: is it cut short?", s->path);
    return STATUS_OK;
}
