/* Every operation of the model, forward and backward, as one table of functions per device. This header is their
 * documentation; docs/adding-an-op.md takes a reader through one.
 *
 * Letters: B batch rows, T positions, S keys, H heads, D width, E experts, K chosen per token, M codes, N rows, V
 * vocabulary. Order of arguments: outputs, inputs, sizes. Matrices are row-major and dense. Gradients of parameters ADD
 * to what is there, gradients of activations overwrite, unless it says so. N may be 0. The same inputs give the same
 * bits on the same device and number of threads.
 *
 * Pointers are the device's memory (device.h) unless they say host, results that are one number too; work is queued on
 * QUEUE_COMPUTE. Products round both factors to the precision (bf16: to nearest, ties to even) and add up in float;
 * what is called exact, and everything else, is computed in `real` in every precision. Scratch is an arena of device
 * memory: what an operation takes it gives back. */
#ifndef VQMOE_OPS_H
#define VQMOE_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/real.h"
#include "base/rng.h"
#include "base/status.h"

enum precision { PRECISION_FP32, PRECISION_BF16 };

/* Inverted dropout: element (row, column) is kept where its random word is at least p 2^32, and then multiplied by 1 /
 * (1 - p). */
struct dropout {
    double p; /* 0: none */
    struct rng_place place;
};

/* Queries are the last T of S keys. r is indexed by distance from the far end: row s holds distance S - 1 - s. Keys
 * before first[b] are padding: probability 0 and no gradient; queries there give 0 (lse too) and get none. What stands
 * in padding must be finite. */
struct attention_shape {
    int64_t B, T, S, H, D;
    const int32_t *first;   /* [B] 0 .. S; NULL: no padding */
    int64_t row_first;      /* global number of batch row 0, for dropout: g = (row_first + b) T + t */
    struct dropout dropout; /* on probabilities; column = key, lane = head */
};

/* Rows in groups, such as those of an expert: group i has rows begin[i] .. begin[i + 1], which may be none. */
struct groups {
    int64_t count;
    const int64_t *begin;      /* host [count + 1] */
    const int64_t *begin_here; /* the same in the device's memory */
};

struct ops {
    const char *name;

    /* C [N, O] = alpha A [N, I] B [I, O] + beta C, A or B transposed in memory where said. */
    void (*gemm)(bool transpose_a, bool transpose_b, int64_t N, int64_t O, int64_t I, double alpha, const real *a,
                 int64_t lda, const real *b, int64_t ldb, double beta, real *c, int64_t ldc);
    /* So many of them, each operand `stride` elements after that of the one before (0: the same one; not for c). */
    void (*gemm_batched)(bool transpose_a, bool transpose_b, int64_t N, int64_t O, int64_t I, double alpha,
                         const real *a, int64_t lda, int64_t stride_a, const real *b, int64_t ldb, int64_t stride_b,
                         double beta, real *c, int64_t ldc, int64_t stride_c, int64_t count);
    /* out [N, O] = in [N, I] weight [O, I]^T + bias [O] (NULL: none) */
    void (*linear_forward)(real *out, const real *in, const real *weight, const real *bias, int64_t N, int64_t O,
                           int64_t I);
    /* din [N, I] (NULL: not wanted; adds where add_din), dweight [O, I] and dbias [O] (each NULL: none) */
    void (*linear_backward)(real *din, bool add_din, real *dweight, real *dbias, const real *dout, const real *in,
                            const real *weight, int64_t N, int64_t O, int64_t I);
    /* The same two, exact: for what chooses experts, codes and gates. */
    void (*linear_exact_forward)(real *out, const real *in, const real *weight, const real *bias, int64_t N, int64_t O,
                                 int64_t I);
    void (*linear_exact_backward)(real *din, bool add_din, real *dweight, real *dbias, const real *dout, const real *in,
                                  const real *weight, int64_t N, int64_t O, int64_t I);
    /* Rows of group i by weight [i] of [count, O, I] and bias [i] of [count, O]. din overwrites. An empty group leaves
     * its gradients as they are. */
    void (*grouped_linear_forward)(real *out, const real *in, const real *weight, const real *bias,
                                   const struct groups *groups, int64_t O, int64_t I);
    void (*grouped_linear_backward)(real *din, real *dweight, real *dbias, const real *dout, const real *in,
                                    const real *weight, const struct groups *groups, int64_t O, int64_t I);
    /* In place, hidden [rows, D]: dropout(max(hidden + bias [i of count, D], 0)); dropout's lane of group i is the
     * place's plus i, its row of row n is rows[n] (NULL without dropout). A NaN stays one. */
    void (*grouped_relu_forward)(real *hidden, const real *bias, const int64_t *rows, struct dropout dropout,
                                 const struct groups *groups, int64_t D);
    /* In place: dhidden, from the result of the forward (positive where it let the value pass). dbias adds. */
    void (*grouped_relu_backward)(real *dhidden, real *dbias, const real *hidden, struct dropout dropout,
                                  struct arena *scratch, const struct groups *groups, int64_t D);

    void (*fill)(real *out, real value, int64_t n);
    void (*copy)(real *out, const real *in, int64_t n);
    /* Row r of width D: out[r out_stride + i] = in[r in_stride + i]; add_rows: += . Rows do not overlap. */
    void (*copy_rows)(real *out, int64_t out_stride, const real *in, int64_t in_stride, int64_t N, int64_t D);
    void (*add_rows)(real *out, int64_t out_stride, const real *in, int64_t in_stride, int64_t N, int64_t D);
    void (*add)(real *out, const real *a, const real *b, int64_t n);                /* out = a + b; out may be a or b */
    void (*add_scaled)(real *out, const real *in, double scale, int64_t n);         /* out += scale in; in may be out */
    void (*tanh_forward)(real *out, const real *in, int64_t n);                     /* out may be in */
    void (*tanh_backward)(real *din, const real *dout, const real *out, int64_t n); /* din may be dout */
    void (*sum)(double *out, const real *in, int64_t n);
    void (*sum_squares)(double *out, const real *in, int64_t n);
    bool (*all_finite)(const real *in, int64_t n); /* waits */
    /* out[n] = in[n K]; out[n] = in[n] mod divisor; of what is not negative */
    void (*take_column)(int32_t *out, const int32_t *in, int64_t N, int64_t K);
    void (*modulo)(int32_t *out, const int32_t *in, int64_t divisor, int64_t N);
    /* counts [M]: how often each of 0 .. M - 1 is among ids [N]; negative ones are passed over */
    void (*histogram)(double *counts, const int32_t *ids, int64_t N, int64_t M);

    /* out [N, D] = scale weight [ids[n]] */
    void (*embedding_forward)(real *out, const real *weight, const int32_t *ids, double scale, int64_t N, int64_t D);
    /* dweight [V, D] */
    void (*embedding_backward)(real *dweight, const real *dout, const int32_t *ids, double scale, struct arena *scratch,
                               int64_t N, int64_t V, int64_t D);
    /* out [N, D]: row n is [sin | cos] of (first + n step) 10000^(-2i/D), then dropout with that distance as row */
    void (*sinusoid)(real *out, int64_t first, int64_t step, struct dropout dropout, int64_t N, int64_t D);

    /* out = weight (in - mean) rstd + bias; biased variance, eps 1e-5; stats [N, 2] = mean, rstd. */
    void (*layer_norm_forward)(real *out, real *stats, const real *in, const real *weight, const real *bias, int64_t N,
                               int64_t D);
    void (*layer_norm_backward)(real *din, real *dweight, real *dbias, const real *dout, const real *in,
                                const real *stats, const real *weight, struct arena *scratch, int64_t N, int64_t D);

    /* out = residual + dropout(in); residual NULL: none. Rows are row_first + n. out may be in or residual. Its own
     * backward. */
    void (*dropout)(real *out, const real *residual, const real *in, struct dropout dropout, int64_t row_first,
                    int64_t N, int64_t D);

    /* out [B, T, H, D] = softmax(((q + bias_w) k^T + shift((q + bias_r) r^T)) / sqrt(D), causal) v (arXiv 1901.02860).
     * q [B, T, H, D], k and v [B, S, H, D], r [S, H, D], bias_w and bias_r [H, D]; absolute attention: the last three
     * NULL. lse [B, H, T]: log of the sum of exponentials, for the backward, which recomputes the scores block by
     * block. */
    void (*attention_forward)(real *out, real *lse, const real *q, const real *k, const real *v, const real *r,
                              const real *bias_w, const real *bias_r, struct arena *scratch,
                              const struct attention_shape *shape);
    /* dr [S, H, D] overwritten; dbias_w, dbias_r add. */
    void (*attention_backward)(real *dq, real *dk, real *dv, real *dr, real *dbias_w, real *dbias_r, const real *dout,
                               const real *out, const real *lse, const real *q, const real *k, const real *v,
                               const real *r, const real *bias_w, const real *bias_r, struct arena *scratch,
                               const struct attention_shape *shape);

    /* losses [N] = lse - logits [n, targets[n]]; lse [N]. Target -1: not among these, loss lse. */
    void (*cross_entropy_forward)(real *losses, real *lse, const real *logits, const int32_t *targets, int64_t N,
                                  int64_t V);
    /* dlogits = scale (softmax - onehot); may be logits itself. Target -1: no onehot. */
    void (*cross_entropy_backward)(real *dlogits, const real *logits, const real *lse, const int32_t *targets,
                                   double scale, int64_t N, int64_t V);
    /* The two of the forward over P parts of each row's logits, parts [P, 2, N] = losses and lse of each part; a part
     * of no logits has -1e30 in both. In the order of the parts. */
    void (*cross_entropy_join)(real *losses, real *lse, const real *parts, int64_t P, int64_t N);

    /* out [N, D] = in / max(norm, floor), norms [N]; out may be in */
    void (*normalize_rows_forward)(real *out, real *norms, const real *in, double floor, int64_t N, int64_t D);
    void (*normalize_rows_backward)(real *din, const real *dout, const real *out, const real *norms, double floor,
                                    int64_t N, int64_t D); /* adds */

    /* experts [N, K]: the K largest scores [N, E] in descending order, ties to the lower index */
    void (*top_k)(int32_t *experts, const real *scores, int64_t N, int64_t E, int64_t K);
    /* weights [N, K]: softmax over all E (over_all) or over the chosen */
    void (*route_weights_forward)(real *weights, const real *scores, const int32_t *experts, bool over_all, int64_t N,
                                  int64_t E, int64_t K);
    void (*route_weights_backward)(real *dscores, const real *dweights, const real *weights, const real *scores,
                                   const int32_t *experts, bool over_all, int64_t N, int64_t E, int64_t K);
    /* sums [E]: over rows, of softmax(scores / tau) */
    void (*balance_forward)(double *sums, const real *scores, double tau, int64_t N, int64_t E);
    /* coefficient [E] = E counts / slots (0 without slots), loss [1] = sum_e coefficient_e sums_e / tokens */
    void (*balance_loss)(double *loss, double *coefficient, const double *sums, const double *counts, double slots,
                         double tokens, int64_t E);
    /* dscores += scale d/ds sum_e coefficient_e softmax(s / tau)_e */
    void (*balance_backward)(real *dscores, const real *scores, const double *coefficient, double scale, double tau,
                             int64_t N, int64_t E);

    /* scores [N, E] = 1 at splitmix64(ids[n] ^ salt) mod E, else 0 */
    void (*hash_scores)(real *scores, const int32_t *ids, uint64_t salt, int64_t N, int64_t E);
    /* experts[i] = -1 where place[i] + shift[experts[i]] >= room; place as sort_by_expert left it, shift [E] */
    void (*drop_beyond)(int32_t *experts, const int64_t *place, const int64_t *shift, int64_t room, int64_t N);

    /* codes [N] = argmin_m |v_m|^2 - 2 z . v_m, ties to the lowest; distance [N, M]: those values, NULL where nobody
     * wants them (they are then never there all at once) */
    void (*nearest_code)(int32_t *codes, real *distance, const real *z, const real *table, struct arena *scratch,
                         int64_t N, int64_t M, int64_t D);
    /* out [N, D] = keep x + take table[codes[n]]; keep 0 assigns the code itself */
    void (*quantize)(real *out, const real *x, const real *table, const int32_t *codes, double keep, double take,
                     int64_t N, int64_t D);
    /* sum over all elements of (table[codes] - x)^2 */
    void (*code_error)(double *out, const real *x, const real *table, const int32_t *codes, int64_t N, int64_t D);
    /* dx += commit (x - v), dtable[code] [M, D] += code_scale (v - x); dtable may be NULL */
    void (*code_error_backward)(real *dx, real *dtable, const real *x, const real *table, const int32_t *codes,
                                double commit, double code_scale, struct arena *scratch, int64_t N, int64_t M,
                                int64_t D);
    /* counts [M] and sums [M, D] (NULL: counts alone) of the rows x [N, D] of each code, ADD */
    void (*code_sums)(double *counts, double *sums, const real *x, const int32_t *codes, int64_t N, int64_t M,
                      int64_t D);
    /* For each code the row with the largest (|v|^2 - scores[n, m]) / 2 + Gumbel noise drawn at (place, row first + n,
     * column m), where it is above best [M]: then best, token [M] = first + n and anchor [M, D] = x[n] are its own. Of
     * equal values the lowest row's. v [M, D] the codes, scores [N, M] as nearest_code left them. */
    void (*anchor_search)(double *best, int64_t *token, double *anchor, const real *scores, const real *v,
                          const real *x, struct rng_place place, int64_t first, int64_t N, int64_t M, int64_t D);

    /* Stable counting sort of N slots by expert: order[i] = slot at place i, place[slot] = i, counts [E]. A dropped
     * slot (expert -1) has place -1 and is not in the order; the functions below pass it over. */
    void (*sort_by_expert)(int64_t *order, int64_t *place, int64_t *counts, const int32_t *experts,
                           struct arena *scratch, int64_t N, int64_t E);
    /* out[n] = first + index[n] / divisor; index NULL: n */
    void (*row_numbers)(int64_t *out, const int64_t *index, int64_t divisor, int64_t first, int64_t N);
    /* out[place[i]] = in[i / K] for all slots i of N; out [those with a place, D] */
    void (*scatter_rows)(real *out, const real *in, const int64_t *place, int64_t K, int64_t N, int64_t D);
    /* out [N, D] = in[index[n] / divisor] */
    void (*gather_rows)(real *out, const real *in, const int64_t *index, int64_t divisor, int64_t N, int64_t D);
    /* out [N, D] = sum_j weights[n, j] rows[place[n K + j]], j in order; weights NULL: 1; adds where add */
    void (*combine_forward)(real *out, bool add, const real *rows, const int64_t *place, const real *weights, int64_t N,
                            int64_t K, int64_t D);
    /* drows[place[n K + j]] = weights[n, j] dout[n]; dweights [N, K] = dout[n] . rows[place], 0 of a dropped slot */
    void (*combine_backward)(real *drows, real *dweights, const real *dout, const real *rows, const int64_t *place,
                             const real *weights, int64_t N, int64_t K, int64_t D);

    /* gates [N, 2] = softmax(logits); out = gates_0 a + gates_1 b */
    void (*mix_forward)(real *out, real *gates, const real *logits, const real *a, const real *b, int64_t N, int64_t D);
    void (*mix_backward)(real *da, real *db, real *dlogits, const real *dout, const real *gates, const real *a,
                         const real *b, int64_t N, int64_t D);

    /* norm [1] = sqrt(sum of squares [3]), scale [1] = min(1, clip / (norm + 1e-6)), not finite where norm is not */
    void (*clip_scale)(double *scale, double *norm, const double *squares, double clip);
    /* Adam: m, v and the parameter from scale [1] times the gradient; correction1 = 1 - beta1^t and so on (arXiv
     * 1412.6980). Nothing changes where scale is not finite. */
    void (*adam)(real *parameter, real *m, real *v, const real *gradient, const double *scale, double lr, double beta1,
                 double beta2, double epsilon, double correction1, double correction2, int64_t n);
};

/* The device's table, chosen once when the program starts, with `device`. */
extern const struct ops *ops;

/* Threads of this rank: sets OpenMP and the libraries that multiply. bf16 products are oneDNN's where the processor has
 * instructions for them, else rounded factors in float: the same numbers. */
void ops_init_cpu(int threads, enum precision precision);
/* "oneDNN 2.6.3" or "OpenBLAS 0.3.21": what multiplies matrices on the CPU. */
const char *ops_library(void);

/* How many GPUs this process sees; 0 and the reason (one line, static) where there is none, or none that will do: no
 * driver, a driver or toolkit too old, a program built without CUDA, in double, ... */
int ops_cuda_devices(const char **reason);
/* A number of its own for each GPU, whatever index a process sees it by. */
uint64_t ops_cuda_identity(int index);
/* Takes GPU `index`: device and ops are its own from now on. The CPU's operations must have been started (they serve
 * the host's own work). STATUS_INTERNAL: it cannot be used, says why. */
enum status ops_init_cuda(int index, enum precision precision);
/* "NVIDIA H100 80GB HBM3, CUDA 13.0, driver 13.0, cuBLAS 13.0.2"; "" on the CPU. */
const char *ops_cuda_description(void);

#endif
