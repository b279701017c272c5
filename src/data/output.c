#include "data/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/files.h"
#include "base/log.h"

static enum status failed(const char *path) {
    return status_fail(STATUS_WRITE, "%s: cannot write: %s", path, strerror(errno));
}

enum status output_begin(struct output *o, const char *folder, const char *name) {
    o->sum = NULL;
    o->used = o->bytes = 0;
    snprintf(o->path, sizeof o->path, "%s/%s", folder, name);
    snprintf(o->beside, sizeof o->beside, "%s/%s.tmp", folder, name);
    o->fd = open(o->beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (o->fd < 0) return failed(o->beside);
    o->sum = XXH3_createState();
    if (!o->sum) FATAL("out of memory");
    XXH3_64bits_reset(o->sum);
    return STATUS_OK;
}

/* The disk begins with what there is while more is made: so that the sync at the end finds little to do. */
static void begin_sync(struct output *o, int64_t n) {
    enum { SOMETIMES = 8 << 20 };
    if ((o->bytes + n) / SOMETIMES > o->bytes / SOMETIMES) sync_file_range(o->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    o->bytes += n;
}

static enum status write_all(struct output *o, const char *bytes, int64_t n) {
    XXH3_64bits_update(o->sum, bytes, (size_t)n);
    begin_sync(o, n);
    while (n > 0) {
        ssize_t written = write(o->fd, bytes, (size_t)n);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return failed(o->beside);
        bytes += written;
        n -= written;
    }
    return STATUS_OK;
}

static enum status flush(struct output *o) {
    enum status status = write_all(o, o->buffer, o->used);
    o->used = 0;
    return status;
}

enum status output_write(struct output *o, const void *bytes, int64_t n) {
    TRY(flush(o));
    if (n >= OUTPUT_BUFFER / 2) return write_all(o, bytes, n);
    memcpy(o->buffer, bytes, (size_t)n);
    o->used = n;
    return STATUS_OK;
}

enum status output_end(struct output *o, enum status status, uint64_t *sum) {
    if (!status) status = flush(o);
    if (o->fd >= 0 && close(o->fd) && !status) status = failed(o->beside);
    if (!status && rename(o->beside, o->path)) status = failed(o->path);
    if (status && o->fd >= 0) unlink(o->beside);
    if (sum && o->sum) *sum = XXH3_64bits_digest(o->sum);
    XXH3_freeState(o->sum);
    return status;
}

enum status output_sync(const char *folder, const char *name) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum status status = fd < 0 || fsync(fd) ? failed(path) : STATUS_OK;
    if (fd >= 0) close(fd);
    return status;
}

bool output_has(const char *folder, const char *name, uint64_t sum) {
    char path[PATH_MAX], block[OUTPUT_BUFFER];
    XXH3_state_t *state = XXH3_createState();
    if (!state) FATAL("out of memory");
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    XXH3_64bits_reset(state);
    for (size_t n; file && (n = fread(block, 1, OUTPUT_BUFFER, file)) > 0;) XXH3_64bits_update(state, block, n);
    bool same = file && !ferror(file) && XXH3_64bits_digest(state) == sum;
    if (file) fclose(file);
    XXH3_freeState(state);
    return same;
}

enum status output_file(const char *folder, const char *name, const void *bytes, int64_t n) {
    struct output output;
    enum status status = output_begin(&output, folder, name);
    if (!status) status = output_write(&output, bytes, n);
    status = output_end(&output, status, NULL);
    if (!status) status = output_sync(folder, name);
    if (!status && !files_sync_entry(output.path)) status = failed(output.path);
    return status;
}

enum status output_note(const char *folder, const char *name, const void *bytes, int64_t n) {
    char path[PATH_MAX], beside[PATH_MAX];
    uint64_t sum = XXH3_64bits(bytes, (size_t)n);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(beside, sizeof beside, "%s/%s.tmp", folder, name);
    FILE *file = fopen(beside, "we");
    bool good = file && fwrite(bytes, 1, (size_t)n, file) == (size_t)n && fwrite(&sum, sizeof sum, 1, file) == 1;
    int cause = errno;
    if (file && fclose(file) && good) {
        cause = errno;
        good = false;
    }
    if (good && rename(beside, path) == 0) return STATUS_OK;
    if (!good) errno = cause;
    enum status status = failed(beside);
    unlink(beside);
    return status;
}

bool output_read_note(const char *folder, const char *name, void *bytes, int64_t n) {
    char path[PATH_MAX];
    uint64_t sum;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (!file) return false;
    bool whole = fread(bytes, 1, (size_t)n, file) == (size_t)n && fread(&sum, sizeof sum, 1, file) == 1 &&
                 getc(file) == EOF && sum == XXH3_64bits(bytes, (size_t)n);
    fclose(file);
    return whole;
}
