#include "train/op_times.h"

#include <string.h>

#include "base/device.h"
#include "base/log.h"

/* Every entry of struct ops; each has its TIMED below. */
/* clang-format off */
#define NAMES(X) \
    X(gemm) X(gemm_batched) X(linear_forward) X(linear_backward) X(linear_exact_forward) X(linear_exact_backward) \
    X(grouped_linear_forward) X(grouped_linear_backward) X(grouped_relu_forward) X(grouped_relu_backward) X(fill) \
    X(copy) X(copy_rows) X(add_rows) X(add) X(add_scaled) X(tanh_forward) X(tanh_backward) X(sum) X(sum_squares) X(all_finite) X(take_column) \
    X(modulo) X(histogram) X(embedding_forward) X(embedding_backward) X(sinusoid) X(layer_norm_forward) \
    X(layer_norm_backward) X(dropout) X(attention_forward) X(attention_backward) X(cross_entropy_forward) \
    X(cross_entropy_backward) X(cross_entropy_join) X(normalize_rows_forward) X(normalize_rows_backward) X(top_k) \
    X(route_weights_forward) X(route_weights_backward) X(balance_forward) X(balance_loss) X(balance_backward) X(hash_scores) X(drop_beyond) \
    X(nearest_code) X(quantize) X(code_error) X(code_error_backward) X(code_sums) X(anchor_search) X(sort_by_expert) \
    X(row_numbers) X(scatter_rows) X(gather_rows) X(combine_forward) X(combine_backward) X(mix_forward) \
    X(mix_backward) X(clip_scale) X(adam)
/* clang-format on */
#define INDEX(entry) OP_##entry,
#define ONE(entry) +1
enum { NAMES(INDEX) };
_Static_assert(0 NAMES(ONE) == OP_TIMES, "an operation without a time: add it to NAMES and its TIMED");

/* Times wait here until the device is done with them, so that the queue never runs dry for their sake. */
enum { PENDING = 64 };
static struct pending {
    struct device_mark from, to;
    int op;
} pending[PENDING];
static unsigned first_pending, next_pending;

static struct op_times *taking;
static const struct ops *plain;
static struct ops timed;

static void settle_one(void) {
    const struct pending *p = &pending[first_pending++ % PENDING];
    device->finish(p->to);
    taking->op[p->op].seconds += device->elapsed(p->from, p->to);
}

/* What the operation calls through the table is its own. */
static struct device_mark enter(void) {
    ops = plain;
    return device->stamp(QUEUE_COMPUTE);
}

static void leave(int op, struct device_mark from, double bytes) {
    struct pending now = {from, device->stamp(QUEUE_COMPUTE), op};
    if (next_pending - first_pending == PENDING) settle_one();
    pending[next_pending++ % PENDING] = now;
    taking->op[op].calls++;
    taking->op[op].bytes += bytes;
    ops = &timed;
}

static void make(int op, const struct product *product) {
    taking->op[op].operations += product_operations(product);
    products_add(&taking->products, product);
}

/* Its matrices lie dense. */
static struct product dense(bool ta, bool tb, int64_t N, int64_t O, int64_t I) {
    return (struct product){.transpose_a = ta,
                            .transpose_b = tb,
                            .N = N,
                            .O = O,
                            .I = I,
                            .lda = ta ? N : I,
                            .ldb = tb ? I : O,
                            .ldc = O,
                            .calls = 1};
}

static void forward_products(int op, bool exact, int64_t N, int64_t O, int64_t I) {
    struct product product = dense(false, true, N, O, I);
    product.exact = exact;
    make(op, &product);
}

static void backward_products(int op, bool exact, bool din, bool add_din, bool dweight, int64_t N, int64_t O,
                              int64_t I) {
    struct product to_rows = dense(false, false, N, I, O), to_weights = dense(true, false, O, I, N);
    to_rows.exact = to_weights.exact = exact;
    to_rows.adds = add_din;
    to_weights.adds = true;
    if (din) make(op, &to_rows);
    if (dweight) make(op, &to_weights);
}

static void code_products(int64_t N, int64_t M, int64_t D) {
    struct product product = dense(false, true, N, M, D);
    product.exact = product.adds = true;
    make(OP_nearest_code, &product);
}

static void grouped_forward_products(const struct groups *groups, int64_t O, int64_t I) {
    for (int64_t i = 0; i < groups->count; ++i)
        forward_products(OP_grouped_linear_forward, false, groups->begin[i + 1] - groups->begin[i], O, I);
}

static void grouped_backward_products(bool din, bool dweight, const struct groups *groups, int64_t O, int64_t I) {
    for (int64_t i = 0; i < groups->count; ++i)
        backward_products(OP_grouped_linear_backward, false, din, false, dweight,
                          groups->begin[i + 1] - groups->begin[i], O, I);
}

/* Blocks of 128 queries, as kernels/cpu/attention.c and kernels/cuda/attention.cu cut them; no product goes beyond a
 * block's last key. `by_keys` are [Q, D] by [N, D], of the others one factor is [Q, N]. */
static void attention_products(int op, const struct attention_shape *s, bool relative, bool backward) {
    const int64_t block = 128;
    int64_t row = s->H * s->D, D = s->D;
    for (int64_t t0 = 0; t0 < s->T; t0 += block) {
        int64_t Q = s->T - t0 < block ? s->T - t0 : block, N = s->S - s->T + t0 + Q;
        struct product by_keys = dense(false, true, Q, N, D), by_scores = dense(false, false, Q, D, N);
        by_keys.parallel = by_scores.parallel = true;
        by_keys.calls = by_scores.calls = s->B * s->H;
        by_keys.lda = relative ? D : row;
        by_keys.ldb = by_scores.ldb = by_scores.ldc = row;
        struct product of_keys = by_scores;
        of_keys.transpose_a = of_keys.adds = true;
        of_keys.N = N, of_keys.I = Q;
        for (int i = 0; i < (relative ? 2 : 1); ++i) make(op, &by_keys); /* scores by content, by distance */
        if (!backward) {
            make(op, &by_scores);
            continue;
        }
        by_keys.lda = row;
        make(op, &by_keys);   /* of the probabilities, through v */
        make(op, &of_keys);   /* dv */
        make(op, &by_scores); /* dq */
        of_keys.ldb = relative ? D : row;
        make(op, &of_keys); /* dk */
        if (!relative) continue;
        make(op, &of_keys); /* dr */
        by_scores.ldc = D;
        make(op, &by_scores); /* dq by distance */
    }
}

#define REALS(n) ((double)(n) * (double)sizeof(real))
#define INT32S(n) ((double)(n)*4)
#define INT64S(n) ((double)(n)*8) /* doubles too */

static double product_bytes(int64_t a, int64_t b, int64_t c, bool adds) { return REALS(a + b + (adds ? 2 : 1) * c); }

/* Of N rows, and of `used` groups' weights. */
static double forward_bytes(bool bias, int64_t N, int64_t used, int64_t O, int64_t I) {
    return N ? REALS(N * (I + O) + used * (O * I + (bias ? O : 0))) : 0;
}

static double backward_bytes(bool din, bool add_din, bool dweight, bool dbias, int64_t N, int64_t used, int64_t O,
                             int64_t I) {
    double bytes = REALS(N * O);
    if (din) bytes += REALS(used * O * I + (add_din ? 2 : 1) * N * I);
    if (dweight) bytes += REALS(N * I + 2 * used * O * I);
    if (dbias) bytes += REALS(2 * used * O);
    return N ? bytes : 0;
}

static int64_t rows_of(const struct groups *groups) { return groups->begin[groups->count] - groups->begin[0]; }

static int64_t used_of(const struct groups *groups) {
    int64_t used = 0;
    for (int64_t i = 0; i < groups->count; ++i) used += groups->begin[i + 1] > groups->begin[i];
    return used;
}

/* Of N slots, K for each. */
static int64_t tokens_of(int64_t N, int64_t K) { return (N + K - 1) / K; }

/* Rows of queries and of keys that each are read or written once; one lse. */
static double attention_bytes(const struct attention_shape *s, bool relative, int queries, int keys, int distances,
                              int biases) {
    int64_t row = s->H * s->D;
    return REALS((queries * s->B * s->T + keys * s->B * s->S) * row + s->B * s->H * s->T +
                 (relative ? distances * s->S * row + biases * row : 0));
}

#define TIMED_PRODUCTS(entry, parameters, arguments, bytes, products) \
    static void timed_##entry parameters { \
        struct device_mark from = enter(); \
        plain->entry arguments; \
        leave(OP_##entry, from, bytes); \
        products; \
    }
#define TIMED(entry, parameters, arguments, bytes) TIMED_PRODUCTS(entry, parameters, arguments, bytes, (void)0)

TIMED_PRODUCTS(gemm,
               (bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
                const real *b, int64_t ldb, double beta, real *c, int64_t ldc),
               (ta, tb, N, O, I, alpha, a, lda, b, ldb, beta, c, ldc), product_bytes(N *I, I *O, N *O, beta != 0),
               make(OP_gemm, &(struct product){ta, tb, beta != 0, false, false, N, O, I, lda, ldb, ldc, 1, 0}))
TIMED_PRODUCTS(gemm_batched,
               (bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
                int64_t stride_a, const real *b, int64_t ldb, int64_t stride_b, double beta, real *c, int64_t ldc,
                int64_t stride_c, int64_t count),
               (ta, tb, N, O, I, alpha, a, lda, stride_a, b, ldb, stride_b, beta, c, ldc, stride_c, count),
               product_bytes((stride_a ? count : 1) * N * I, (stride_b ? count : 1) * I * O, count *N *O, beta != 0),
               make(OP_gemm_batched,
                    &(struct product){ta, tb, beta != 0, false, count > 1, N, O, I, lda, ldb, ldc, count, 0}))
TIMED_PRODUCTS(linear_forward,
               (real * out, const real *in, const real *weight, const real *bias, int64_t N, int64_t O, int64_t I),
               (out, in, weight, bias, N, O, I), forward_bytes(bias, N, 1, O, I),
               forward_products(OP_linear_forward, false, N, O, I))
TIMED_PRODUCTS(linear_backward,
               (real * din, bool add_din, real *dweight, real *dbias, const real *dout, const real *in,
                const real *weight, int64_t N, int64_t O, int64_t I),
               (din, add_din, dweight, dbias, dout, in, weight, N, O, I),
               backward_bytes(din, add_din, dweight, dbias, N, 1, O, I),
               backward_products(OP_linear_backward, false, din, add_din, dweight, N, O, I))
TIMED_PRODUCTS(linear_exact_forward,
               (real * out, const real *in, const real *weight, const real *bias, int64_t N, int64_t O, int64_t I),
               (out, in, weight, bias, N, O, I), forward_bytes(bias, N, 1, O, I),
               forward_products(OP_linear_exact_forward, true, N, O, I))
TIMED_PRODUCTS(linear_exact_backward,
               (real * din, bool add_din, real *dweight, real *dbias, const real *dout, const real *in,
                const real *weight, int64_t N, int64_t O, int64_t I),
               (din, add_din, dweight, dbias, dout, in, weight, N, O, I),
               backward_bytes(din, add_din, dweight, dbias, N, 1, O, I),
               backward_products(OP_linear_exact_backward, true, din, add_din, dweight, N, O, I))
TIMED_PRODUCTS(grouped_linear_forward,
               (real * out, const real *in, const real *weight, const real *bias, const struct groups *groups,
                int64_t O, int64_t I),
               (out, in, weight, bias, groups, O, I), forward_bytes(bias, rows_of(groups), used_of(groups), O, I),
               grouped_forward_products(groups, O, I))
TIMED_PRODUCTS(grouped_linear_backward,
               (real * din, real *dweight, real *dbias, const real *dout, const real *in, const real *weight,
                const struct groups *groups, int64_t O, int64_t I),
               (din, dweight, dbias, dout, in, weight, groups, O, I),
               backward_bytes(din, false, dweight, dbias, rows_of(groups), used_of(groups), O, I),
               grouped_backward_products(din, dweight, groups, O, I))
TIMED(grouped_relu_forward,
      (real * hidden, const real *bias, const int64_t *rows, struct dropout dropout, const struct groups *groups,
       int64_t D),
      (hidden, bias, rows, dropout, groups, D),
      REALS((2 * rows_of(groups) + used_of(groups)) * D) + (rows ? INT64S(rows_of(groups)) : 0))
TIMED(grouped_relu_backward,
      (real * dhidden, real *dbias, const real *hidden, struct dropout dropout, struct arena *scratch,
       const struct groups *groups, int64_t D),
      (dhidden, dbias, hidden, dropout, scratch, groups, D), REALS((3 * rows_of(groups) + 2 * used_of(groups)) * D))

TIMED(fill, (real * out, real value, int64_t n), (out, value, n), REALS(n))
TIMED(copy, (real * out, const real *in, int64_t n), (out, in, n), REALS(2 * n))
TIMED(copy_rows, (real * out, int64_t out_stride, const real *in, int64_t in_stride, int64_t N, int64_t D),
      (out, out_stride, in, in_stride, N, D), REALS(2 * N * D))
TIMED(add_rows, (real * out, int64_t out_stride, const real *in, int64_t in_stride, int64_t N, int64_t D),
      (out, out_stride, in, in_stride, N, D), REALS(3 * N * D))
TIMED(add, (real * out, const real *a, const real *b, int64_t n), (out, a, b, n), REALS((a == b ? 2 : 3) * n))
TIMED(add_scaled, (real * out, const real *in, double scale, int64_t n), (out, in, scale, n),
      REALS((in == out ? 2 : 3) * n))
TIMED(tanh_forward, (real * out, const real *in, int64_t n), (out, in, n), REALS(2 * n))
TIMED(tanh_backward, (real * din, const real *dout, const real *out, int64_t n), (din, dout, out, n), REALS(3 * n))
TIMED(sum, (double *out, const real *in, int64_t n), (out, in, n), REALS(n) + INT64S(1))
TIMED(sum_squares, (double *out, const real *in, int64_t n), (out, in, n), REALS(n) + INT64S(1))
TIMED(take_column, (int32_t * out, const int32_t *in, int64_t N, int64_t K), (out, in, N, K), INT32S(2 * N))
TIMED(modulo, (int32_t * out, const int32_t *in, int64_t divisor, int64_t N), (out, in, divisor, N), INT32S(2 * N))
TIMED(histogram, (double *counts, const int32_t *ids, int64_t N, int64_t M), (counts, ids, N, M), INT32S(N) + INT64S(M))

static bool timed_all_finite(const real *in, int64_t n) {
    struct device_mark from = enter();
    bool finite = plain->all_finite(in, n);
    leave(OP_all_finite, from, REALS(n));
    return finite;
}

TIMED(embedding_forward, (real * out, const real *weight, const int32_t *ids, double scale, int64_t N, int64_t D),
      (out, weight, ids, scale, N, D), REALS(N *D) + INT32S(N))
TIMED(embedding_backward,
      (real * dweight, const real *dout, const int32_t *ids, double scale, struct arena *scratch, int64_t N, int64_t V,
       int64_t D),
      (dweight, dout, ids, scale, scratch, N, V, D), REALS(N *D) + INT32S(N))
TIMED(sinusoid, (real * out, int64_t first, int64_t step, struct dropout dropout, int64_t N, int64_t D),
      (out, first, step, dropout, N, D), REALS(N *D))
TIMED(layer_norm_forward,
      (real * out, real *stats, const real *in, const real *weight, const real *bias, int64_t N, int64_t D),
      (out, stats, in, weight, bias, N, D), REALS(2 * N * D + 2 * N + 2 * D))
TIMED(layer_norm_backward,
      (real * din, real *dweight, real *dbias, const real *dout, const real *in, const real *stats, const real *weight,
       struct arena *scratch, int64_t N, int64_t D),
      (din, dweight, dbias, dout, in, stats, weight, scratch, N, D), REALS(3 * N * D + 2 * N + 5 * D))
TIMED(dropout,
      (real * out, const real *residual, const real *in, struct dropout dropout, int64_t row_first, int64_t N,
       int64_t D),
      (out, residual, in, dropout, row_first, N, D), REALS((residual ? 3 : 2) * N * D))

TIMED_PRODUCTS(attention_forward,
               (real * out, real *lse, const real *q, const real *k, const real *v, const real *r, const real *bias_w,
                const real *bias_r, struct arena *scratch, const struct attention_shape *s),
               (out, lse, q, k, v, r, bias_w, bias_r, scratch, s), attention_bytes(s, r, 2, 2, 1, 2),
               attention_products(OP_attention_forward, s, r, false))
TIMED_PRODUCTS(attention_backward,
               (real * dq, real *dk, real *dv, real *dr, real *dbias_w, real *dbias_r, const real *dout,
                const real *out, const real *lse, const real *q, const real *k, const real *v, const real *r,
                const real *bias_w, const real *bias_r, struct arena *scratch, const struct attention_shape *s),
               (dq, dk, dv, dr, dbias_w, dbias_r, dout, out, lse, q, k, v, r, bias_w, bias_r, scratch, s),
               attention_bytes(s, r, 4, 4, 2, 6), attention_products(OP_attention_backward, s, r, true))

TIMED(cross_entropy_forward,
      (real * losses, real *lse, const real *logits, const int32_t *targets, int64_t N, int64_t V),
      (losses, lse, logits, targets, N, V), REALS(N *V + 2 * N) + INT32S(N))
TIMED(cross_entropy_backward,
      (real * dlogits, const real *logits, const real *lse, const int32_t *targets, double scale, int64_t N, int64_t V),
      (dlogits, logits, lse, targets, scale, N, V), REALS(2 * N * V + N) + INT32S(N))
TIMED(cross_entropy_join, (real * losses, real *lse, const real *parts, int64_t P, int64_t N),
      (losses, lse, parts, P, N), REALS(2 * P * N + 2 * N))
TIMED(normalize_rows_forward, (real * out, real *norms, const real *in, double floor, int64_t N, int64_t D),
      (out, norms, in, floor, N, D), REALS(2 * N * D + N))
TIMED(normalize_rows_backward,
      (real * din, const real *dout, const real *out, const real *norms, double floor, int64_t N, int64_t D),
      (din, dout, out, norms, floor, N, D), REALS(4 * N * D + N))

TIMED(top_k, (int32_t * experts, const real *scores, int64_t N, int64_t E, int64_t K), (experts, scores, N, E, K),
      REALS(N *E) + INT32S(N * K))
TIMED(route_weights_forward,
      (real * weights, const real *scores, const int32_t *experts, bool over_all, int64_t N, int64_t E, int64_t K),
      (weights, scores, experts, over_all, N, E, K), REALS(N *(K + (over_all ? E : K))) + INT32S(N * K))
TIMED(route_weights_backward,
      (real * dscores, const real *dweights, const real *weights, const real *scores, const int32_t *experts,
       bool over_all, int64_t N, int64_t E, int64_t K),
      (dscores, dweights, weights, scores, experts, over_all, N, E, K),
      REALS(N *(E + 2 * K + (over_all ? E : 0))) + INT32S(N * K))
TIMED(balance_forward, (double *sums, const real *scores, double tau, int64_t N, int64_t E), (sums, scores, tau, N, E),
      REALS(N *E) + INT64S(E))
TIMED(balance_loss,
      (double *loss, double *coefficient, const double *sums, const double *counts, double slots, double tokens,
       int64_t E),
      (loss, coefficient, sums, counts, slots, tokens, E), INT64S(3 * E + 1))
TIMED(balance_backward,
      (real * dscores, const real *scores, const double *coefficient, double scale, double tau, int64_t N, int64_t E),
      (dscores, scores, coefficient, scale, tau, N, E), REALS(3 * N * E) + INT64S(E))
TIMED(hash_scores, (real * scores, const int32_t *ids, uint64_t salt, int64_t N, int64_t E), (scores, ids, salt, N, E),
      REALS(N *E) + INT32S(N))
TIMED(drop_beyond, (int32_t * experts, const int64_t *place, const int64_t *shift, int64_t room, int64_t N),
      (experts, place, shift, room, N), INT32S(N) + INT64S(N))

TIMED_PRODUCTS(nearest_code,
               (int32_t * codes, real *distance, const real *z, const real *table, struct arena *scratch, int64_t N,
                int64_t M, int64_t D),
               (codes, distance, z, table, scratch, N, M, D), REALS((N + M) * D + (distance ? N * M : 0)) + INT32S(N),
               code_products(N, M, D))
TIMED(quantize,
      (real * out, const real *x, const real *table, const int32_t *codes, double keep, double take, int64_t N,
       int64_t D),
      (out, x, table, codes, keep, take, N, D), REALS((keep == 0 ? 1 : 2) * N * D) + INT32S(N))
TIMED(code_error, (double *out, const real *x, const real *table, const int32_t *codes, int64_t N, int64_t D),
      (out, x, table, codes, N, D), REALS(N *D) + INT32S(N) + INT64S(1))
TIMED(code_error_backward,
      (real * dx, real *dtable, const real *x, const real *table, const int32_t *codes, double commit,
       double code_scale, struct arena *scratch, int64_t N, int64_t M, int64_t D),
      (dx, dtable, x, table, codes, commit, code_scale, scratch, N, M, D), REALS(3 * N * D) + INT32S(N))
TIMED(code_sums, (double *counts, double *sums, const real *x, const int32_t *codes, int64_t N, int64_t M, int64_t D),
      (counts, sums, x, codes, N, M, D), (sums ? REALS(N * D) : 0) + INT32S(N))
TIMED(anchor_search,
      (double *best, int64_t *token, double *anchor, const real *scores, const real *v, const real *x,
       struct rng_place place, int64_t first, int64_t N, int64_t M, int64_t D),
      (best, token, anchor, scores, v, x, place, first, N, M, D), REALS((N + D) * M) + INT64S(M))

TIMED(sort_by_expert,
      (int64_t * order, int64_t *place, int64_t *counts, const int32_t *experts, struct arena *scratch, int64_t N,
       int64_t E),
      (order, place, counts, experts, scratch, N, E), INT32S(N) + INT64S(2 * N + E))
TIMED(row_numbers, (int64_t * out, const int64_t *index, int64_t divisor, int64_t first, int64_t N),
      (out, index, divisor, first, N), INT64S((index ? 2 : 1) * N))
TIMED(scatter_rows, (real * out, const real *in, const int64_t *place, int64_t K, int64_t N, int64_t D),
      (out, in, place, K, N, D), REALS((N + tokens_of(N, K)) * D) + INT64S(N))
TIMED(gather_rows, (real * out, const real *in, const int64_t *index, int64_t divisor, int64_t N, int64_t D),
      (out, in, index, divisor, N, D), REALS((N + tokens_of(N, divisor)) * D) + INT64S(N))
TIMED(combine_forward,
      (real * out, bool add, const real *rows, const int64_t *place, const real *weights, int64_t N, int64_t K,
       int64_t D),
      (out, add, rows, place, weights, N, K, D),
      REALS(((add ? 2 : 1) + K) * N * D + (weights ? N * K : 0)) + INT64S(N * K))
TIMED(combine_backward,
      (real * drows, real *dweights, const real *dout, const real *rows, const int64_t *place, const real *weights,
       int64_t N, int64_t K, int64_t D),
      (drows, dweights, dout, rows, place, weights, N, K, D), REALS((1 + 2 * K) * N * D + 2 * N * K) + INT64S(N * K))
TIMED(mix_forward, (real * out, real *gates, const real *logits, const real *a, const real *b, int64_t N, int64_t D),
      (out, gates, logits, a, b, N, D), REALS(3 * N * D + 4 * N))
TIMED(mix_backward,
      (real * da, real *db, real *dlogits, const real *dout, const real *gates, const real *a, const real *b, int64_t N,
       int64_t D),
      (da, db, dlogits, dout, gates, a, b, N, D), REALS(5 * N * D + 4 * N))

TIMED(clip_scale, (double *scale, double *norm, const double *squares, double clip), (scale, norm, squares, clip),
      INT64S(5))
TIMED(adam,
      (real * parameter, real *m, real *v, const real *gradient, const double *scale, double lr, double beta1,
       double beta2, double epsilon, double correction1, double correction2, int64_t n),
      (parameter, m, v, gradient, scale, lr, beta1, beta2, epsilon, correction1, correction2, n),
      REALS(7 * n) + INT64S(1))

#define ENTRY(entry) .entry = timed_##entry,
#define NAMED(entry) times->op[OP_##entry].name = #entry;

void op_times_begin(struct op_times *times) {
    CHECK(!taking);
    memset(times, 0, sizeof *times);
    NAMES(NAMED)
    taking = times;
    plain = ops;
    timed = (struct ops){NAMES(ENTRY)};
    timed.name = plain->name;
    ops = &timed;
}

void op_times_end(struct op_times *times) {
    CHECK(taking == times && ops == &timed);
    while (first_pending != next_pending) settle_one();
    ops = plain;
    taking = NULL;
}

struct op_time op_times_sum(const struct op_times *times) {
    struct op_time sum = {.name = "all operations"};
    for (int i = 0; i < OP_TIMES; ++i) {
        sum.calls += times->op[i].calls;
        sum.seconds += times->op[i].seconds;
        sum.bytes += times->op[i].bytes;
        sum.operations += times->op[i].operations;
    }
    return sum;
}

void op_times_free(struct op_times *times) { products_free(&times->products); }
