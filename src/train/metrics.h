/* metrics.jsonl in the run folder: one JSON object a line, keys fixed (docs/metrics.md); and route_hashes.tsv: the
 * choices of every step. Rank 0 writes. */
#ifndef VQMOE_METRICS_H
#define VQMOE_METRICS_H

#include <stdbool.h>
#include <stdio.h>

#include "train/step.h"

struct task;

struct metrics {
    FILE *file; /* NULL on ranks above 0 */
    char path[1024];
    FILE *hashes;
    char hashes_path[1024];
    int hashes_errno; /* of the first failed write */
};

/* Opens both in `folder`: new, or, where a run goes on after `step` updates, without the lines of later steps.
 * STATUS_WRITE. */
enum status metrics_open(struct metrics *metrics, const char *folder, int rank, int64_t step);
void metrics_close(struct metrics *metrics);

/* The line of step `number` (updates done), buffered; written by metrics_flush, which metrics_write calls too.
 * metrics_flush: STATUS_WRITE, of any line since the beginning. */
void metrics_hashes(struct metrics *metrics, int64_t number, const struct step *step);
enum status metrics_flush(struct metrics *metrics);
/* Flushes, and waits until all lines are on disk. */
enum status metrics_sync(struct metrics *metrics);

struct metrics_line {
    int64_t step; /* updates done */
    const char *split;
    const struct task *task;
    double loss;               /* nats per token, or per example; the task alone */
    double accuracy, macro_f1; /* of a classifier; NAN: not there */
    const struct step *train;  /* losses, load, codes and hashes of a training step; NULL for an evaluation */
    double lr, grad_norm;      /* of that step */
    int64_t count;             /* tokens, or examples: trained on so far; evaluated */
    double per_s;              /* tokens (evaluation of a classifier: examples) a second, global */
    int64_t best_step;         /* of the checkpoint that is tested; -1: none is */
};
enum status metrics_write(struct metrics *metrics, const struct metrics_line *line);

/* Whether the folder has a line of this step and split. */
bool metrics_has(const char *folder, int64_t step, const char *split);

/* A look at the routing (diagnostics.h). */
struct routing_line {
    int64_t step, layers;
    const double *measures; /* [layers, MEASURES]; NAN: null */
    double bytes, seconds;  /* from rank to another rank, a step; what this look cost */
};
enum status metrics_write_routing(struct metrics *metrics, const struct routing_line *line);

#endif
