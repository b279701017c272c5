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
    double *used;        /* [M] tokens of this step */
    double *best;        /* [M] the largest cos + noise so far in this step, and the token it belongs to */
    int64_t *token;      /* [M] */
    double *anchor;      /* [M, d] */
    int64_t tokens;      /* of the step */
};

static void forget_step(struct quantizer *q) {
    struct online *own = q->own;
    memset(own->used, 0, (size_t)q->M * sizeof *own->used);
    memset(own->anchor, 0, (size_t)(q->M * q->width) * sizeof *own->anchor);
    for (int64_t k = 0; k < q->M; ++k) {
        own->best[k] = -INFINITY;
        own->token[k] = INT64_MAX;
    }
}

static void init(struct quantizer *q, struct params *params, const struct config *config) {
    struct online *own = q->own = calloc(1, sizeof *own);
    if (!own) FATAL("out of memory");
    own->used = calloc((size_t)q->M, sizeof *own->used);
    own->best = calloc((size_t)q->M, sizeof *own->best);
    own->token = calloc((size_t)q->M, sizeof *own->token);
    own->anchor = calloc((size_t)(q->M * q->width), sizeof *own->anchor);
    if (!own->used || !own->best || !own->token || !own->anchor) FATAL("out of memory");
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
    int64_t d = q->width, M = q->M, first = pass_token_first(pass);
    struct rng_place place = rng_place(pass->seed, pass->step, RNG_ANCHOR, q->layer, 0);
    double *squares = ARENA_ARRAY(pass->arena, double, M);
    for (int64_t k = 0; k < M; ++k) {
        squares[k] = 0;
        for (int64_t i = 0; i < d; ++i) squares[k] += (double)q->key_v[k * d + i] * q->key_v[k * d + i];
    }
    own->tokens = pass->tokens_global;
    for (int64_t n = 0; n < N; ++n) own->used[q->codes[n]]++;
#pragma omp parallel for schedule(static)
    for (int64_t quad = 0; quad < (M + 3) / 4; ++quad)
        for (int64_t n = 0; n < N; ++n) {
            uint32_t words[4];
            rng_words(words, place, (uint32_t)(first + n), (uint32_t)quad);
            for (int64_t k = 4 * quad; k < M && k < 4 * quad + 4; ++k) {
                double gumbel = -log(-log(rng_uniform(words[k & 3])));
                double value = (squares[k] - scores[n * M + k]) / 2 + gumbel;
                if (value <= own->best[k]) continue;
                own->best[k] = value;
                own->token[k] = first + n;
                for (int64_t i = 0; i < d; ++i) own->anchor[k * d + i] = x[n * d + i];
            }
        }
}

/* Every rank ends up with the anchors of the whole step: the largest value, of equal ones the lowest token's. */
static void agree_on_anchors(struct quantizer *q) {
    struct online *own = q->own;
    int64_t M = q->M, d = q->width;
    double *mine = malloc((size_t)M * sizeof *mine);
    int64_t *token = malloc((size_t)M * sizeof *token);
    if (!mine || !token) FATAL("out of memory");
    memcpy(mine, own->best, (size_t)M * sizeof *mine);
    comm_allreduce(q->world, own->best, M, COMM_DOUBLE, COMM_MAX);
    for (int64_t k = 0; k < M; ++k) token[k] = mine[k] == own->best[k] ? own->token[k] : INT64_MAX;
    comm_allreduce(q->world, token, M, COMM_INT64, COMM_MIN);
    for (int64_t k = 0; k < M; ++k)
        if (token[k] != own->token[k] || mine[k] != own->best[k])
            memset(own->anchor + k * d, 0, (size_t)d * sizeof *own->anchor);
    comm_allreduce(q->world, own->anchor, M * d, COMM_DOUBLE, COMM_SUM);
    free(mine);
    free(token);
}

static void after_step(struct quantizer *q, int64_t step) {
    (void)step;
    struct online *own = q->own;
    int64_t d = q->width;
    comm_allreduce(q->world, own->used, q->M, COMM_DOUBLE, COMM_SUM);
    agree_on_anchors(q);
    for (int64_t k = 0; k < q->M; ++k) {
        double u = q->decay * own->usage->data[k] + (1 - q->decay) * own->used[k] / (double)own->tokens;
        double a = exp(-10 * (double)q->M * u / (1 - q->decay) - 1e-3);
        own->usage->data[k] = (real)u;
        for (int64_t i = k * d; i < (k + 1) * d; ++i)
            q->table->data[i] = (real)(q->table->data[i] * (1 - a) + a * own->anchor[i]);
    }
    forget_step(q);
}

static void free_own(struct quantizer *q) {
    struct online *own = q->own;
    free(own->used);
    free(own->best);
    free(own->token);
    free(own->anchor);
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
