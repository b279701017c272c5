/* Codes are moving averages of their tokens (arXiv 1711.00937, appendix A.1): no gradient moves them. */
#include <stdlib.h>

#include "base/log.h"
#include "moe/quantizer.h"

static const double epsilon = 1e-5;

struct ema {
    struct param *count, *sum; /* state N [M], m [M, d] */
    double *step;              /* device, of this step: n [M], then sum z [M, d] */
};

static size_t step_bytes(const struct quantizer *q) { return (size_t)(q->M * (1 + q->width)) * sizeof(double); }

static void init(struct quantizer *q, struct params *params, const struct config *config) {
    struct ema *own = q->own = calloc(1, sizeof *own);
    int64_t shape[] = {q->M, q->width};
    struct initial ones = {INITIAL_CONSTANT, 1, 0};
    if (!own) FATAL("out of memory");
    own->step = device_zeros(step_bytes(q), "quantizer.kind: ema");
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
    ops->code_sums(own->step, own->step + q->M, x, q->codes, N, q->M, q->width);
}

/* On the host, M d numbers once a step. */
static void after_step(struct quantizer *q, int64_t step) {
    (void)step;
    struct ema *own = q->own;
    int64_t d = q->width, size = q->M * (1 + d);
    size_t count_bytes = (size_t)q->M * sizeof(real), code_bytes = (size_t)(q->M * d) * sizeof(real);
    double keep = q->decay, all = 0;
    comm_sum_here(q->world, QUEUE_COMPUTE, own->step, size, COMM_DOUBLE);
    const double *seen = device_view(own->step, step_bytes(q));
    real *count = device_edit(own->count->data, count_bytes), *sum = device_edit(own->sum->data, code_bytes),
         *table = device_edit(q->table->data, code_bytes);
    for (int64_t k = 0; k < q->M; ++k) {
        count[k] = (real)(keep * count[k] + (1 - keep) * seen[k]);
        all += count[k];
    }
    for (int64_t k = 0; k < q->M; ++k) {
        double divisor = (count[k] + epsilon) / (all + (double)q->M * epsilon) * all;
        for (int64_t i = k * d; i < (k + 1) * d; ++i) {
            sum[i] = (real)(keep * sum[i] + (1 - keep) * seen[q->M + i]);
            table[i] = (real)(sum[i] / divisor);
        }
    }
    device_edit_close(count, own->count->data, count_bytes);
    device_edit_close(sum, own->sum->data, code_bytes);
    device_edit_close(table, q->table->data, code_bytes);
    device_view_close(seen, own->step);
    device->set(own->step, 0, step_bytes(q));
}

static void free_own(struct quantizer *q) { device->release(((struct ema *)q->own)->step, step_bytes(q)); }

const struct quantizer_kind quantizer_ema = {
    .name = "ema",
    .init = init,
    .start = start,
    .collect = collect,
    .after_step = after_step,
    .free = free_own,
};
