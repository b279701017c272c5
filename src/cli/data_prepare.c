#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/cli.h"
#include "data/prepare.h"
#include "train/control.h"
#include "train/threads.h"

/* All stages, as far as they go. *done: the folder was finished before. */
static enum status prepare(struct preparation *p, struct comm *world, bool *done) {
    enum status (*const stages[])(struct preparation *) = {prepare_survey, prepare_vocabulary, prepare_encode,
                                                           prepare_end};
    TRY(comm_agree(world, prepare_begin(p)));
    comm_broadcast(world, &p->done, sizeof p->done, 0);
    *done = p->done;
    for (size_t i = 0; i < sizeof stages / sizeof *stages && !*done; ++i) TRY(comm_agree(world, stages[i](p)));
    return STATUS_OK;
}

static void tell(const struct preparation *p, struct comm *world, enum status status, bool done, double seconds) {
    int64_t counts[] = {p->units, p->kept}, bytes = 0;
    comm_allreduce(world, counts, 2, COMM_INT64, COMM_SUM);
    for (int64_t i = 0; i < p->plan.n_sources; ++i) bytes += p->plan.sources[i].is.bytes;
    if (counts[1])
        log_info("%" PRId64 " of %" PRId64 " pieces and digests were finished by an earlier run", counts[1], counts[0]);
    if (done)
        log_info("nothing to do: %s is finished, of the same sources and options", p->folder);
    else if (status == STATUS_REQUEUE)
        log_info("asked to stop: what is finished is kept in %s; the same command goes on", p->folder);
    else if (!status)
        log_info("%s: %" PRId64 " bytes of sources in %.1f s, %.1f MB/s, on %d ranks of %d threads", p->folder, bytes,
                 seconds, 1e-6 * (double)bytes / seconds, p->ranks, p->threads);
}

static enum status show(const struct config *config) {
    struct text text;
    TRY(text_open(&text, config));
    data_show(&text, config);
    text_close(&text);
    return STATUS_OK;
}

enum status cli_data_prepare(const struct arguments *arguments, struct comm *world) {
    struct config config;
    double from = clock_seconds();
    bool done = false;
    control_catch_signals();
    TRY(cli_configuration(&config, arguments, world));
    comm_limit(config.parallel.timeout_s);
    struct preparation p = {.config = &config,
                            .rank = world->rank,
                            .ranks = world->size,
                            .threads = threads_choose(world, config.parallel.threads),
                            .tool = cli_version(),
                            .asked = control_was_asked};
    enum status status = prepare(&p, world, &done);
    tell(&p, world, status, done, clock_seconds() - from);
    preparation_free(&p);
    if (status) return status; /* agreed on, and one rank has the message */
    return comm_agree(world, world->rank ? STATUS_OK : show(&config));
}
