#include "data/work.h"

#include <fcntl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

void work_add(struct work *w, struct unit unit) {
    if ((w->n_units & (w->n_units - 1)) == 0)
        w->units = realloc(w->units, (size_t)(2 * w->n_units + 1) * sizeof *w->units);
    if (!w->units) FATAL("out of memory");
    w->units[w->n_units++] = unit;
}

static const struct source *source_of(const struct work *w, const struct unit *unit) {
    const struct plan *plan = &w->p->plan;
    return &plan->sources[unit->piece < 0 ? unit->source : plan->members[plan->pieces[unit->piece].member].source];
}

static int64_t bytes_of(const struct work *w, const struct unit *unit) {
    const struct piece *piece = &w->p->plan.pieces[unit->piece < 0 ? 0 : unit->piece];
    return unit->piece < 0 ? source_of(w, unit)->is.bytes : piece->to - piece->from;
}

/* Dealt by number, finished or not: each rank sees for itself what is. */
static bool is_mine(const struct work *w, int64_t i) { return i % w->p->ranks == w->p->rank && !w->units[i].kept; }

/* ---- Reading ---- */

/* On to a member of an archive, and its piece: all of an archive goes by, whoever wants what of it. */
static enum status read_archive(struct work *w, const struct unit *unit, struct load *load) {
    const struct piece *piece = &w->p->plan.pieces[unit->piece];
    const struct member *member = &w->p->plan.members[piece->member];
    const char *name;
    int64_t bytes;
    if (!w->stream || w->source != member->source) {
        stream_close(w->stream);
        w->stream = NULL;
        w->source = member->source;
        w->index = -1;
        TRY(stream_open(&w->stream, source_of(w, unit)->path, true));
    }
    while (w->index < member->index) {
        TRY(stream_next(w->stream, &name, &bytes));
        w->index++;
        if (!name || (w->index == member->index && bytes != member->bytes))
            return status_fail(STATUS_DATA, "%s: expected the archive that it was, found another one",
                               source_of(w, unit)->path);
    }
    return stream_piece(w->stream, piece->from, piece->to, plan_has_lines(&w->p->plan), load);
}

/* Words need their lines, and so all of a piece; bytes go by in blocks. */
static enum status read_file(struct work *w, const struct unit *unit, struct stream *stream, struct load *load) {
    const struct piece *piece = &w->p->plan.pieces[unit->piece];
    int64_t expected = w->p->plan.members[piece->member].bytes, bytes;
    const char *name;
    TRY(stream_next(stream, &name, &bytes));
    if (bytes != expected)
        return status_fail(STATUS_DATA, "%s: expected %lld bytes, as it had, found %lld", name, (long long)expected,
                           (long long)bytes);
    return plan_has_lines(&w->p->plan) ? stream_piece(stream, piece->from, piece->to, true, load)
                                       : stream_blocks(stream, piece->from, piece->to, load);
}

static enum status run_file(struct work *w, const struct unit *unit, struct load *load) {
    struct stream *stream = NULL;
    enum status status = stream_open(&stream, source_of(w, unit)->path, false);
    if (!status) status = read_file(w, unit, stream, load);
    if (!status) status = w->run(w->p, unit, load);
    stream_close(stream);
    return status;
}

/* ---- Dealing ---- */

static void stop_file(const struct work *w, char path[PATH_MAX]) { snprintf(path, PATH_MAX, "%s/stop", w->p->work); }

/* The other ranks need not go on. */
static void fail(struct work *w, enum status status) {
    char path[PATH_MAX];
    if (!w->status) w->status = status;
    stop_file(w, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0) close(fd);
}

static void look(struct work *w) {
    char path[PATH_MAX];
    stop_file(w, path);
    w->stopped = access(path, F_OK) == 0;
    if (w->p->asked && w->p->asked()) fail(w, STATUS_REQUEUE);
}

static void tell(const struct work *w) {
    double seconds = clock_seconds() - w->started, rate = (double)w->bytes / (seconds + 1e-9);
    long left = (long)((double)(w->bytes_all - w->bytes) / (rate + 1));
    log_progress("%s: %.0f%%, %.1f MB/s%s, left %ld:%02ld:%02ld", w->name,
                 100 * (double)w->bytes / (double)(w->bytes_all + 1), 1e-6 * rate,
                 w->p->ranks > 1 ? " on this rank" : "", left / 3600, left / 60 % 60, left % 60);
}

/* The next unit of this rank, and of an archive its bytes; false: no more. One thread at a time. */
static bool take(struct work *w, struct unit *unit, struct load *load) {
    if (!w->status) look(w);
    while (w->next < w->n_units && !is_mine(w, w->next)) w->next++;
    if (w->status || w->stopped || w->next == w->n_units) return false;
    *unit = w->units[w->next++];
    tell(w);
    w->bytes += bytes_of(w, unit);
    enum status status = STATUS_OK;
    if (unit->piece >= 0 && source_of(w, unit)->archive) status = read_archive(w, unit, load);
    if (status) fail(w, status);
    return !status;
}

static void work_thread(struct work *w) {
    struct load load = {0};
    for (;;) {
        struct unit unit;
        bool more;
#pragma omp critical(work)
        more = take(w, &unit, &load);
        if (!more) break;
        bool file = unit.piece >= 0 && !source_of(w, &unit)->archive;
        enum status status = file ? run_file(w, &unit, &load) : w->run(w->p, &unit, &load);
#pragma omp critical(work)
        if (status) fail(w, status);
    }
    load_free(&load);
}

enum status work_run(struct work *w) {
    w->started = clock_seconds();
    for (int64_t i = 0; i < w->n_units; ++i) {
        if (i % w->p->ranks != w->p->rank) continue;
        w->p->units++;
        w->p->kept += w->units[i].kept;
        if (!w->units[i].kept) w->bytes_all += bytes_of(w, &w->units[i]);
    }
    omp_set_num_threads(w->p->threads < PREPARE_THREADS ? w->p->threads : PREPARE_THREADS);
#pragma omp parallel
    work_thread(w);
    stream_close(w->stream);
    for (int64_t i = 0; i < w->n_units && w->settle && !w->status && !w->stopped; ++i)
        if (is_mine(w, i)) w->status = w->settle(w->p, &w->units[i]);
    free(w->units);
    return w->status;
}
