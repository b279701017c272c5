#include "train/slow.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

/* Phases in which all ranks do the same; looks and checkpoints are not shared out evenly. */
static const enum phase compared[] = {PHASE_DATA, PHASE_FORWARD, PHASE_BACKWARD, PHASE_UPDATE, PHASE_VALIDATE};
enum { COMPARED = sizeof compared / sizeof *compared, QUIET = 10 };
static const double least = 0.1; /* seconds */

static void *zeros(size_t count, size_t bytes) {
    void *memory = calloc(count, bytes);
    if (!memory) FATAL("out of memory");
    return memory;
}

void slow_init(struct slow *slow, struct comm *world, int64_t rows, int64_t rows_evaluated) {
    size_t n = (size_t)world->size;
    struct slow_rank own = {rows, rows_evaluated, ""};
    *slow = (struct slow){.world = world, .interval = 1};
    slow->ranks = zeros(n, sizeof *slow->ranks);
    slow->spent = zeros(n * PHASES, sizeof *slow->spent);
    slow->warned = zeros(n * PHASES, sizeof *slow->warned);
    gethostname(own.host, sizeof own.host - 1);
    _Static_assert(sizeof own % sizeof(int64_t) == 0, "travels as whole numbers");
    comm_allgather(world, (int64_t *)(void *)slow->ranks, (const int64_t *)(const void *)&own,
                   sizeof own / sizeof(int64_t));
    phase_busy(slow->busy);
}

void slow_free(struct slow *slow) {
    free(slow->ranks);
    free(slow->spent);
    free(slow->warned);
    *slow = (struct slow){0};
}

static int64_t rows_of(const struct slow_rank *rank, enum phase phase) {
    return phase == PHASE_UPDATE ? 1 : phase == PHASE_VALIDATE ? rank->rows_evaluated : rank->rows;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The lower median over ranks of the seconds of work for a row; ranks without rows are left out. */
static double median(const struct slow *slow, enum phase phase) {
    size_t n = 0;
    double *seconds = zeros((size_t)slow->world->size, sizeof *seconds);
    for (int r = 0; r < slow->world->size; ++r) {
        int64_t rows = rows_of(&slow->ranks[r], phase);
        if (rows) seconds[n++] = 1e-9 * (double)slow->spent[r * PHASES + (int)phase] / (double)rows;
    }
    qsort(seconds, n, sizeof *seconds, ascending);
    double middle = n ? seconds[(n - 1) / 2] : 0;
    free(seconds);
    return middle;
}

static void warn(struct slow *slow, enum phase phase, int64_t steps) {
    double middle = median(slow, phase);
    for (int r = 0; r < slow->world->size; ++r) {
        int64_t *warned = &slow->warned[r * PHASES + (int)phase];
        double took = 1e-9 * (double)slow->spent[r * PHASES + (int)phase],
               usual = middle * (double)rows_of(&slow->ranks[r], phase);
        if (took <= 2 * usual || took - usual < least) continue;
        if (*warned && slow->interval - *warned < QUIET) continue;
        *warned = slow->interval;
        log_warning("rank %d (host %s) is slow: %s took %.1f s of the last %lld steps, the median is %.1f s", r,
                    slow->ranks[r].host, phase_names[phase], took, (long long)steps, usual);
    }
}

void slow_check(struct slow *slow, int64_t steps) {
    double busy[PHASES];
    int64_t spent[PHASES];
    if (slow->world->size == 1) return;
    phase_busy(busy);
    for (int i = 0; i < PHASES; ++i) spent[i] = (int64_t)(1e9 * (busy[i] - slow->busy[i]));
    comm_allgather(slow->world, slow->spent, spent, PHASES);
    for (int i = 0; slow->world->rank == 0 && i < COMPARED; ++i) warn(slow, compared[i], steps);
    memcpy(slow->busy, busy, sizeof busy);
    ++slow->interval;
}
