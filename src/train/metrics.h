/* metrics.jsonl in the run folder: one JSON object a line, keys fixed (docs/metrics.md). Rank 0 writes. */
#ifndef VQMOE_METRICS_H
#define VQMOE_METRICS_H

#include <stdio.h>

#include "train/step.h"

struct metrics {
    FILE *file; /* NULL on ranks above 0 */
    char path[1024];
};

/* Opens folder/metrics.jsonl: new, or, where a run goes on after `step` updates, without the lines of later steps.
 * STATUS_WRITE. */
enum status metrics_open(struct metrics *metrics, const char *folder, int rank, int64_t step);
void metrics_close(struct metrics *metrics);

struct metrics_line {
    int64_t step; /* updates done */
    const char *split;
    double loss;              /* nats per token, the task alone */
    const struct step *train; /* losses, load, codes and hashes of a training step; NULL for an evaluation */
    double lr, grad_norm;     /* of that step */
    int64_t tokens;           /* trained on so far; evaluated */
    double tokens_per_s;      /* global */
};
enum status metrics_write(struct metrics *metrics, const struct metrics_line *line);

#endif
