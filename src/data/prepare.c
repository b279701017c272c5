#include "data/prepare.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/files.h"
#include "base/lock.h"
#include "base/log.h"
#include "data/output.h"
#include "data/prepare_private.h"
#include "data/sha256.h"

#define PLAN_FILE "plan"

/* ---- The folder ---- */

static bool ends_with(const char *name, const char *ending) {
    size_t n = strlen(name), m = strlen(ending);
    return n >= m && !strcmp(name + n - m, ending);
}

/* What a preparation writes beside work/. */
static bool is_ours(const char *name) {
    for (int s = 0; s < SPLITS; ++s) {
        size_t n = strlen(split_names[s]);
        if (!strncmp(name, split_names[s], n) && name[n] == '-' &&
            (ends_with(name, ".bin") || ends_with(name, ".idx") || ends_with(name, ".tmp")))
            return true;
    }
    return !strncmp(name, VOCABULARY_FILE, strlen(VOCABULARY_FILE)) || !strcmp(name, MANIFEST_FILE ".tmp");
}

/* Files of a folder, all or ours alone; but for the lock. */
static enum status remove_files(const char *folder, bool all) {
    char path[PATH_MAX];
    DIR *entries = opendir(folder);
    if (!entries) return status_fail(STATUS_WRITE, "%s: cannot read: %s", folder, strerror(errno));
    enum status status = STATUS_OK;
    for (struct dirent *entry; (entry = readdir(entries)) && !status;) {
        if (entry->d_name[0] == '.' || !strcmp(entry->d_name, "lock") || !(all || is_ours(entry->d_name))) continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (unlink(path)) status = status_fail(STATUS_WRITE, "%s: cannot remove: %s", path, strerror(errno));
    }
    closedir(entries);
    return status;
}

static enum status remove_work(struct preparation *p) {
    char path[PATH_MAX];
    TRY(remove_files(p->work, true));
    snprintf(path, sizeof path, "%s/lock", p->work);
    if (unlink(path) || rmdir(p->work))
        return status_fail(STATUS_WRITE, "%s: cannot remove: %s", p->work, strerror(errno));
    return STATUS_OK;
}

bool prepare_await(const struct preparation *p, const char *name, void *bytes, int64_t n) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", p->work, name);
    return files_await(path) && output_read_note(p->work, name, bytes, n);
}

/* ---- Begin ---- */

/* Finished before: of the same, or of something else. */
static enum status check_finished(struct preparation *p) {
    struct manifest manifest;
    char path[PATH_MAX], what[512];
    snprintf(path, sizeof path, "%s/" MANIFEST_FILE, p->folder);
    if (access(path, F_OK)) return STATUS_OK;
    enum status status = manifest_read(&manifest, p->folder);
    p->done = !status && plan_fits(&p->plan, &manifest, what, sizeof what);
    if (!status && !p->done)
        status = status_fail(STATUS_CONFIG,
                             "data.prepared: %s: expected a folder of the same sources and options, "
                             "found another one: %s; remove it, or set another folder",
                             p->folder, what);
    manifest_free(&manifest);
    return status;
}

/* Goes on with what is there, or begins anew. */
static enum status write_plan(struct preparation *p) {
    char path[PATH_MAX];
    int64_t size;
    char *bytes = plan_bytes(&p->plan, &size), *there = malloc((size_t)size);
    if (!there) FATAL("out of memory");
    bool same = output_read_note(p->work, PLAN_FILE, there, size) && !memcmp(bytes, there, (size_t)size);
    enum status status = STATUS_OK;
    snprintf(path, sizeof path, "%s/stop", p->work);
    unlink(path);
    if (!same) {
        snprintf(path, sizeof path, "%s/" PLAN_FILE, p->work);
        if (!access(path, F_OK))
            log_info("%s: was begun with other sources or options, or by another vqmoe: begins anew", p->folder);
        status = remove_files(p->work, true);
        if (!status) status = remove_files(p->folder, false);
        if (!status) status = output_note(p->work, PLAN_FILE, bytes, size);
    }
    free(bytes);
    free(there);
    return status;
}

static enum status begin(struct preparation *p) {
    char path[PATH_MAX];
    TRY(plan_make(&p->plan, p->config, p->tool, p->piece_bytes ? p->piece_bytes : PIECE_BYTES));
    TRY(check_finished(p));
    if (p->done && access(p->work, F_OK)) return STATUS_OK;
    if (!files_make_folder(p->work))
        return status_fail(STATUS_WRITE, "data.prepared: cannot create %s: %s", p->work, strerror(errno));
    snprintf(path, sizeof path, "%s/lock", p->work);
    TRY(lock_take(&p->lock, path, "data.prepared", 0));
    TRY(check_finished(p)); /* by whoever held the lock */
    return p->done ? remove_work(p) : write_plan(p);
}

enum status prepare_begin(struct preparation *p) {
    const char *folder = p->config->data.prepared;
    p->lock = -1;
    snprintf(p->folder, sizeof p->folder, "%s", folder);
    snprintf(p->work, sizeof p->work, "%s/work", folder);
    if (p->config->data.kind > DATA_LM1B)
        return status_fail(STATUS_CONFIG,
                           "data.kind: expected enwik8, text8, text, words or lm1b, found labelled texts, "
                           "which are read as they are");
    if (!folder[0]) return status_fail(STATUS_CONFIG, "data.prepared: expected a folder to write, found none");
    return p->rank ? STATUS_OK : begin(p);
}

void preparation_free(struct preparation *p) {
    if (p->lock >= 0) close(p->lock);
    plan_free(&p->plan);
    vocabulary_free(&p->vocabulary);
}

/* ---- End ---- */

/* Nothing has changed while it was read. */
static enum status check_source(const struct source *source) {
    struct stat info;
    bool same = stat(source->path, &info) == 0 && info.st_size == source->is.bytes &&
                (int64_t)info.st_mtim.tv_sec * 1000000 + info.st_mtim.tv_nsec / 1000 == source->is.modified;
    return same ? STATUS_OK
                : status_fail(STATUS_DATA, "%s: expected a file that stays as it is, found it changed", source->path);
}

static enum status take_sources(const struct preparation *p, struct manifest *m) {
    m->sources = calloc((size_t)p->plan.n_sources, sizeof *m->sources);
    if (!m->sources) FATAL("out of memory");
    for (int64_t i = 0; i < p->plan.n_sources; ++i) {
        char name[PREPARE_NAME];
        m->sources[m->n_sources++] = p->plan.sources[i].is;
        TRY(check_source(&p->plan.sources[i]));
        prepare_name_digest(name, i);
        if (!prepare_await(p, name, m->sources[i].sha256, SHA256_TEXT))
            return status_fail(STATUS_INTERNAL, "%s/%s: expected a digest, found none", p->work, name);
    }
    return STATUS_OK;
}

static enum status take_parts(const struct preparation *p, struct manifest *m) {
    for (int64_t i = 0; i < p->plan.n_pieces; ++i) m->splits[p->plan.pieces[i].split].n_parts++;
    for (int s = 0; s < SPLITS; ++s) {
        m->splits[s].parts = calloc((size_t)m->splits[s].n_parts + 1, sizeof *m->splits[s].parts);
        if (!m->splits[s].parts) FATAL("out of memory");
    }
    for (int64_t i = 0; i < p->plan.n_pieces; ++i) {
        const struct piece *piece = &p->plan.pieces[i];
        char name[PREPARE_NAME];
        struct manifest_part *part = &m->splits[piece->split].parts[piece->number];
        prepare_name_done(name, piece);
        if (!prepare_await(p, name, part, sizeof *part))
            return status_fail(STATUS_INTERNAL, "%s/%s: expected a finished part, found none", p->work, name);
    }
    return manifest_add_up(m, p->folder);
}

static enum status take_vocabulary(const struct preparation *p, struct manifest *m) {
    char path[PATH_MAX];
    struct text_map map;
    m->V = p->vocabulary.size;
    m->bytes = p->vocabulary.bytes;
    memcpy(m->byte_of, p->vocabulary.byte_of, sizeof m->byte_of);
    if (m->bytes) return STATUS_OK;
    snprintf(path, sizeof path, "%s/" VOCABULARY_FILE, p->folder);
    TRY(text_map_file(&map, "data.prepared", path));
    m->vocabulary_bytes = map.size;
    sha256_of(map.address, (size_t)map.size, m->vocabulary_sha256);
    text_unmap(&map);
    return STATUS_OK;
}

static enum status write_manifest(const struct preparation *p, struct manifest *m) {
    TRY(take_sources(p, m));
    TRY(take_vocabulary(p, m));
    TRY(take_parts(p, m));
    char *text = manifest_text(m);
    enum status status = output_file(p->folder, MANIFEST_FILE, text, (int64_t)strlen(text));
    free(text);
    return status;
}

enum status prepare_end(struct preparation *p) {
    struct manifest manifest = {.kind = p->plan.kind, .newlines = p->plan.newlines, .min_count = p->plan.min_count};
    if (p->rank) return STATUS_OK;
    snprintf(manifest.tool, sizeof manifest.tool, "%s", p->tool);
    enum status status = write_manifest(p, &manifest);
    manifest_free(&manifest);
    return status ? status : remove_work(p);
}
