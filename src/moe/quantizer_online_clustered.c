/* Codes that are little used move to tokens (arXiv 2307.15139): with u_k the moving average of a code's usage,
 * a_k = exp(-10 K u_k / (1 - decay) - 1e-3), v_k <- v_k (1 - a_k) + a_k anchor_k; the anchor is drawn from the step's
 * tokens by softmax(cos(x, v_k)), as the largest cos + Gumbel noise: the same token on any number of ranks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "moe/quantizer.h"

struct online {
    struct param *usage; /* state u [M] */
    int64_t tokens;      /* of the step */
    /* Device memory, of this step: */
    double *used;   /* [M] tokens */
    double *best;   /* [M] the largest cos + noise so far, and the token it belongs to */
    int64_t *token; /* [M] */
    double *anchor; /* [M, d] */
};

/* Of M rows of a double or an int64_t each. */
static size_t bytes_of(const struct quantizer *q, int64_t columns) { return (size_t)(q->M * columns) * sizeof(double); }

static void forget_step(struct quantizer *q) {
    struct online *own = q->own;
    double *best = device_edit(own->best, bytes_of(q, 1));
    int64_t *token = device_edit(own->token, bytes_of(q, 1));
    for (int64_t k = 0; k < q->M; ++k) {
        best[k] = -INFINITY;
        token[k] = INT64_MAX;
    }
    device_edit_close(best, own->best, bytes_of(q, 1));
    device_edit_close(token, own->token, bytes_of(q, 1));
    device->set(own->used, 0, bytes_of(q, 1));
    device->set(own->anchor, 0, bytes_of(q, q->width));
}

static void init(struct quantizer *q, struct params *params, const struct config *config) {
    static const char what[] = "quantizer.kind: online_clustered";
    struct online *own = q->own = calloc(1, sizeof *own);
    if (!own) FATAL("out of memory");
    own->used = device_zeros(bytes_of(q, 1), what);
    own->best = device_zeros(bytes_of(q, 1), what);
    own->token = device_zeros(bytes_of(q, 1), what);
    own->anchor = device_zeros(bytes_of(q, q->width), what);
    forget_step(q);
    quantizer_add_codes(q, params, config, PLACE_REPLICATED);
    own->usage = params_add(params, q->layer, "quantizer.usage", PLACE_STATE, INITIAL_ZERO, 1, &q->M);
}

static void prepare(struct quantizer *q, const struct pass *pass, const real *x, int64_t N) {
    real *norms;
    q->key_z = quantizer_normalize(pass, &norms, x, N, q->width);
    q->key_v = quantizer_normalize(pass, &norms, q->table->data, q->M, q->width);
}

/* Scores are |v|^2 - 2 x . v of unit vectors. */
static void collect(struct quantizer *q, const struct pass *pass, const real *scores, const real *x, int64_t N) {
    struct online *own = q->own;
    struct rng_place place = rng_place(pass->seed, pass->step, RNG_ANCHOR, q->layer, 0);
    own->tokens = pass->tokens_global;
    ops->code_sums(own->used, NULL, x, q->codes, N, q->M, q->width);
    ops->anchor_search(own->best, own->token, own->anchor, scores, q->key_v, x, place, pass_token_first(pass), N, q->M,
                       q->width);
}

/* Every rank ends up with the anchors of the whole step: the largest value, of equal ones the lowest token's. */
static void agree_on_anchors(struct quantizer *q, double *anchor) {
    struct online *own = q->own;
    int64_t M = q->M, d = q->width;
    const double *mine = device_view(own->best, bytes_of(q, 1));
    const int64_t *my_token = device_view(own->token, bytes_of(q, 1));
    double *best = malloc(bytes_of(q, 1));
    int64_t *token = malloc(bytes_of(q, 1));
    if (!best || !token) FATAL("out of memory");
    memcpy(best, mine, bytes_of(q, 1));
    comm_allreduce(q->world, best, M, COMM_DOUBLE, COMM_MAX);
    for (int64_t k = 0; k < M; ++k) token[k] = mine[k] == best[k] ? my_token[k] : INT64_MAX;
    comm_allreduce(q->world, token, M, COMM_INT64, COMM_MIN);
    for (int64_t k = 0; k < M; ++k)
        if (token[k] != my_token[k] || mine[k] != best[k]) memset(anchor + k * d, 0, (size_t)d * sizeof *anchor);
    comm_allreduce(q->world, anchor, M * d, COMM_DOUBLE, COMM_SUM);
    device_view_close(mine, own->best);
    device_view_close(my_token, own->token);
    free(best);
    free(token);
}

/* On the host, M d numbers once a step. */
static void after_step(struct quantizer *q, int64_t step) {
    (void)step;
    struct online *own = q->own;
    int64_t d = q->width;
    size_t usage_bytes = (size_t)q->M * sizeof(real), code_bytes = (size_t)(q->M * d) * sizeof(real);
    double *used = device_edit(own->used, bytes_of(q, 1)), *anchor = device_edit(own->anchor, bytes_of(q, d));
    real *usage = device_edit(own->usage->data, usage_bytes), *table = device_edit(q->table->data, code_bytes);
    comm_allreduce(q->world, used, q->M, COMM_DOUBLE, COMM_SUM);
    agree_on_anchors(q, anchor);
    for (int64_t k = 0; k < q->M; ++k) {
        double u = q->decay * usage[k] + (1 - q->decay) * used[k] / (double)own->tokens;
        double a = exp(-10 * (double)q->M * u / (1 - q->decay) - 1e-3);
        usage[k] = (real)u;
        for (int64_t i = k * d; i < (k + 1) * d; ++i) table[i] = (real)(table[i] * (1 - a) + a * anchor[i]);
    }
    device_edit_close(used, own->used, bytes_of(q, 1));
    device_edit_close(anchor, own->anchor, bytes_of(q, d));
    device_edit_close(usage, own->usage->data, usage_bytes);
    device_edit_close(table, q->table->data, code_bytes);
    forget_step(q);
}

static void free_own(struct quantizer *q) {
    struct online *own = q->own;
    device->release(own->used, bytes_of(q, 1));
    device->release(own->best, bytes_of(q, 1));
    device->release(own->token, bytes_of(q, 1));
    device->release(own->anchor, bytes_of(q, q->width));
}

const struct quantizer_kind quantizer_online_clustered = {
    .name = "online_clustered",
    .codes_lose = 1,
    .init = init,
    .prepare = prepare,
    .collect = collect,
    .after_step = after_step,
    .free = free_own,
};
