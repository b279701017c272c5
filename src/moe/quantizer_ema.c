/* Codes are moving averages of their tokens (arXiv 1711.00937, appendix A.1): no gradient moves them. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "moe/quantizer.h"

static const double epsilon = 1e-5;

struct ema {
    struct param *count, *sum; /* state N [M], m [M, d] */
    double *step;              /* of this step: n [M], then sum z [M, d] */
};

static void init(struct quantizer *q, struct params *params, const struct config *config) {
    struct ema *own = q->own = calloc(1, sizeof *own);
    int64_t shape[] = {q->M, q->width};
    struct initial ones = {INITIAL_CONSTANT, 1, 0};
    if (!own || !(own->step = calloc((size_t)(q->M * (1 + q->width)), sizeof *own->step))) FATAL("out of memory");
    quantizer_add_codes(q, params, config, PLACE_STATE);
    own->count = params_add(params, q->layer, "quantizer.count", PLACE_STATE, ones, 1, shape);
    own->sum = params_add(params, q->layer, "quantizer.sum", PLACE_STATE, INITIAL_ZERO, 2, shape);
}

static void start(struct quantizer *q) {
    struct ema *own = q->own;
    ops->copy(own->sum->data, q->table->data, q->M * q->width);
}

static void collect(struct quantizer *q, const struct pass *pass, const real *scores, const real *x, int64_t N) {
    (void)pass, (void)scores;
    struct ema *own = q->own;
    int64_t d = q->width;
    for (int64_t n = 0; n < N; ++n) {
        double *sum = own->step + q->M + q->codes[n] * d;
        own->step[q->codes[n]]++;
        for (int64_t i = 0; i < d; ++i) sum[i] += x[n * d + i];
    }
}

static void after_step(struct quantizer *q, int64_t step) {
    (void)step;
    struct ema *own = q->own;
    int64_t d = q->width, size = q->M * (1 + d);
    double keep = q->decay, all = 0;
    comm_allreduce(q->world, own->step, size, COMM_DOUBLE, COMM_SUM);
    for (int64_t k = 0; k < q->M; ++k) {
        own->count->data[k] = (real)(keep * own->count->data[k] + (1 - keep) * own->step[k]);
        all += own->count->data[k];
    }
    for (int64_t k = 0; k < q->M; ++k) {
        double divisor = (own->count->data[k] + epsilon) / (all + (double)q->M * epsilon) * all;
        for (int64_t i = k * d; i < (k + 1) * d; ++i) {
            own->sum->data[i] = (real)(keep * own->sum->data[i] + (1 - keep) * own->step[q->M + i]);
            q->table->data[i] = (real)(own->sum->data[i] / divisor);
        }
    }
    memset(own->step, 0, (size_t)size * sizeof *own->step);
}

static void free_own(struct quantizer *q) { free(((struct ema *)q->own)->step); }

const struct quantizer_kind quantizer_ema = {
    .name = "ema",
    .init = init,
    .start = start,
    .collect = collect,
    .after_step = after_step,
    .free = free_own,
};
