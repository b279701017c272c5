/* Attention over blocks of queries: the scores of one block live in cache, those beyond the causal edge are never
 * computed, and the backward computes them again. Compiled with the finite-math flags for vector exp.
 *
 * Of query t (row M + t of the keys, M = S - T) and key s the distance is M + t - s. Queries t0 .. t0 + Q - 1 see N = M
 * + t0 + Q keys and as many distances. r runs from far to near, so that its last N rows against the block's queries
 * give P [Q, N] with distance N - 1 - j in column j; the score of key s takes column s + Q - 1 - i: the relative shift
 * is a shift of rows. A row with padding is a shorter row: its blocks begin at its first query, its keys at first[b].
 */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

#ifdef REAL_DOUBLE
#define EXP exp
#else
#define EXP expf
#endif

enum { BLOCK = 128, LANES = 16 }; /* queries of a block; floats of the widest vector */

/* The keys a row sees, and some it does not, so that no vector is partly filled: exp one at a time is slow. */
static int64_t padded(int64_t seen, int64_t N) {
    int64_t up = (seen + LANES - 1) / LANES * LANES;
    return up < N ? up : N;
}

/* Heads are the tasks; where there are fewer heads than threads, rows are cut in chunks too, each with its own sum of
 * dr. */
static int64_t row_chunks(const struct attention_shape *s) {
    int64_t chunks = (omp_get_max_threads() + s->H - 1) / s->H;
    return chunks < s->B ? chunks : s->B > 0 ? s->B : 1;
}

static int64_t first_key(const struct attention_shape *s, int64_t b) { return s->first ? s->first[b] : 0; }

static int64_t first_query(const struct attention_shape *s, int64_t b) {
    int64_t first = first_key(s, b) - (s->S - s->T);
    return first < 0 ? 0 : first;
}

/* Of the queries in padding: rows [D] of one head. */
static void clear_padding(real *rows, int64_t b, const struct attention_shape *s) {
    for (int64_t t = 0; t < first_query(s, b); ++t) memset(rows + t * s->H * s->D, 0, (size_t)s->D * sizeof *rows);
}

/* What one thread works in. */
struct work {
    real *qw, *qr;        /* [BLOCK, D] q plus its bias */
    real *score, *second; /* [BLOCK, S] */
    real *third;          /* [BLOCK, S], backward only */
};

static int64_t work_size(const struct attention_shape *s, bool backward) {
    return 2 * BLOCK * s->D + (backward ? 3 : 2) * BLOCK * s->S;
}

static struct work work_of(real *scratch, const struct attention_shape *s, bool backward) {
    real *base = scratch + omp_get_thread_num() * work_size(s, backward);
    struct work w = {.qw = base, .qr = base + BLOCK * s->D, .score = base + 2 * BLOCK * s->D};
    w.second = w.score + BLOCK * s->S;
    w.third = backward ? w.second + BLOCK * s->S : NULL;
    return w;
}

/* Scores [Q, N] of one block into w->score, scaled, not masked; r NULL: absolute. */
static void block_scores(struct work *w, const real *q, const real *k, const real *r, const real *bias_w,
                         const real *bias_r, int64_t Q, int64_t N, const struct attention_shape *s) {
    int64_t row = s->H * s->D;
    double scale = 1 / sqrt((double)s->D);
    if (!r) {
        cpu_gemm(false, true, Q, N, s->D, scale, q, row, k, row, 0, w->score, N);
        return;
    }
    for (int64_t i = 0; i < Q; ++i)
        for (int64_t d = 0; d < s->D; ++d) {
            w->qw[i * s->D + d] = q[i * row + d] + bias_w[d];
            w->qr[i * s->D + d] = q[i * row + d] + bias_r[d];
        }
    cpu_gemm(false, true, Q, N, s->D, scale, w->qw, s->D, k, row, 0, w->score, N);
    cpu_gemm(false, true, Q, N, s->D, scale, w->qr, s->D, r + (s->S - N) * row, row, 0, w->second, N);
    for (int64_t i = 0; i < Q; ++i) {
        int64_t seen = N - Q + i + 1;
        real *score = w->score + i * N;
        const real *shifted = w->second + i * N + Q - 1 - i;
#pragma omp simd
        for (int64_t j = 0; j < seen; ++j) score[j] += shifted[j];
    }
}

static struct dropout head_dropout(const struct attention_shape *s, int64_t h) {
    struct dropout dropout = s->dropout;
    dropout.place.site |= (uint32_t)h << 16;
    return dropout;
}

static uint32_t global_row(const struct attention_shape *s, int64_t b, int64_t t) {
    return (uint32_t)((s->row_first + b) * s->T + t);
}

/* Of a row's queries t0 .. and its keys from first_key on, where k and v stand; q and out at query t0. */
static void forward_block(struct work *w, real *out, real *lse, const real *q, const real *k, const real *v,
                          const real *r, const real *bias_w, const real *bias_r, int64_t b, int64_t h, int64_t t0,
                          const struct attention_shape *s) {
    int64_t Q = s->T - t0 < BLOCK ? s->T - t0 : BLOCK, first = first_key(s, b), N = s->S - s->T + t0 + Q - first;
    int64_t row = s->H * s->D;
    struct dropout dropout = head_dropout(s, h);
    block_scores(w, q, k, r, bias_w, bias_r, Q, N, s);
    for (int64_t i = 0; i < Q; ++i) {
        int64_t seen = N - Q + i + 1;
        real *score = w->score + i * N, top = score[0], sum = 0;
#pragma omp simd reduction(max : top)
        for (int64_t j = 0; j < seen; ++j) top = score[j] > top ? score[j] : top;
        int64_t end = padded(seen, N);
#pragma omp simd
        for (int64_t j = 0; j < end; ++j) score[j] = EXP(score[j] - top);
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < seen; ++j) sum += score[j];
        real inverse = 1 / sum;
#pragma omp simd
        for (int64_t j = 0; j < seen; ++j) score[j] *= inverse;
        memset(score + seen, 0, (size_t)(N - seen) * sizeof *score);
        lse[t0 + i] = top + (real)log((double)sum);
        if (dropout.p > 0) dropout_row(score, &dropout, global_row(s, b, t0 + i), first, seen);
    }
    cpu_gemm(false, false, Q, s->D, N, 1, w->score, N, v, row, 0, out, row);
}

static void attention_forward(real *out, real *lse, const real *q, const real *k, const real *v, const real *r,
                              const real *bias_w, const real *bias_r, struct arena *arena,
                              const struct attention_shape *s) {
    struct arena_mark mark = arena_mark(arena);
    real *scratch = ARENA_ARRAY(arena, real, omp_get_max_threads() * work_size(s, false));
    int64_t row = s->H * s->D;
#pragma omp parallel
    {
        struct work w = work_of(scratch, s, false);
#pragma omp for schedule(dynamic) collapse(2)
        for (int64_t b = 0; b < s->B; ++b)
            for (int64_t h = 0; h < s->H; ++h) {
                real *head_lse = lse + (b * s->H + h) * s->T;
                clear_padding(out + b * s->T * row + h * s->D, b, s);
                memset(head_lse, 0, (size_t)first_query(s, b) * sizeof *head_lse);
                for (int64_t t0 = first_query(s, b); t0 < s->T; t0 += BLOCK) {
                    int64_t at = (b * s->T + t0) * row + h * s->D, keys = (b * s->S + first_key(s, b)) * row + h * s->D;
                    forward_block(&w, out + at, head_lse, q + at, k + keys, v + keys, r ? r + h * s->D : NULL,
                                  r ? bias_w + h * s->D : NULL, r ? bias_r + h * s->D : NULL, b, h, t0, s);
                }
            }
    }
    arena_release(arena, mark);
}

/* Of one head of one batch row; every pointer stands at its first element (those of keys at first_key), rows are H D
 * apart (dbias: [D]). */
struct head {
    real *dq, *dk, *dv, *dr, *dbias_w, *dbias_r;
    const real *dout, *out, *lse, *q, *k, *v, *r, *bias_w, *bias_r;
};

/* P from the saved lse; dscore = P (dP - rowsum(dout out)) / sqrt(D). */
static void backward_block(struct work *w, const struct head *head, int64_t b, int64_t h, int64_t t0,
                           const struct attention_shape *s) {
    int64_t Q = s->T - t0 < BLOCK ? s->T - t0 : BLOCK, first = first_key(s, b), N = s->S - s->T + t0 + Q - first;
    int64_t row = s->H * s->D, D = s->D;
    const real *q = head->q + t0 * row, *dout = head->dout + t0 * row, *out = head->out + t0 * row;
    const real *r = head->r ? head->r + (s->S - N) * row : NULL;
    real *dq = head->dq + t0 * row, scale = (real)(1 / sqrt((double)D));
    struct dropout dropout = head_dropout(s, h);
    block_scores(w, q, head->k, head->r, head->bias_w, head->bias_r, Q, N, s);
    real *dp = w->third;
    cpu_gemm(false, true, Q, N, D, 1, dout, row, head->v, row, 0, dp, N);
    for (int64_t i = 0; i < Q; ++i) {
        int64_t seen = N - Q + i + 1;
        real *p = w->score + i * N, *dropped = w->second + i * N, *ds = dp + i * N, lse = head->lse[t0 + i], delta = 0;
        for (int64_t d = 0; d < D; ++d) delta += dout[i * row + d] * out[i * row + d];
        int64_t end = padded(seen, N);
#pragma omp simd
        for (int64_t j = 0; j < end; ++j) p[j] = EXP(p[j] - lse);
        memset(p + seen, 0, (size_t)(N - seen) * sizeof *p);
        memset(ds + seen, 0, (size_t)(N - seen) * sizeof *ds);
        if (dropout.p > 0) { /* delta already holds the dropped probabilities, through out */
            memcpy(dropped, p, (size_t)N * sizeof *p);
            dropout_row(dropped, &dropout, global_row(s, b, t0 + i), first, seen);
            for (int64_t j = 0; j < seen; ++j) ds[j] = scale * (dropped[j] * ds[j] - p[j] * delta);
        } else {
#pragma omp simd
            for (int64_t j = 0; j < seen; ++j) ds[j] = scale * p[j] * (ds[j] - delta);
        }
    }
    cpu_gemm(true, false, N, D, Q, 1, dropout.p > 0 ? w->second : w->score, N, dout, row, 1, head->dv, row);
    cpu_gemm(false, false, Q, D, N, 1, dp, N, head->k, row, 0, dq, row);
    cpu_gemm(true, false, N, D, Q, 1, dp, N, r ? w->qw : q, r ? D : row, 1, head->dk, row);
    if (!r) return;
    for (int64_t i = 0; i < Q; ++i) {
        for (int64_t d = 0; d < D; ++d) head->dbias_w[d] += dq[i * row + d];
        memset(w->score + i * N, 0, (size_t)(Q - 1 - i) * sizeof *w->score);
        memcpy(w->score + i * N + Q - 1 - i, dp + i * N, (size_t)(N - Q + i + 1) * sizeof *dp);
    }
    cpu_gemm(true, false, N, D, Q, 1, w->score, N, w->qr, D, 1, head->dr + (s->S - N) * row, row);
    cpu_gemm(false, false, Q, D, N, 1, w->score, N, r, row, 0, w->qr, D);
    for (int64_t i = 0; i < Q; ++i)
        for (int64_t d = 0; d < D; ++d) {
            head->dbias_r[d] += w->qr[i * D + d];
            dq[i * row + d] += w->qr[i * D + d];
        }
}

static void attention_backward(real *dq, real *dk, real *dv, real *dr, real *dbias_w, real *dbias_r, const real *dout,
                               const real *out, const real *lse, const real *q, const real *k, const real *v,
                               const real *r, const real *bias_w, const real *bias_r, struct arena *arena,
                               const struct attention_shape *s) {
    struct arena_mark mark = arena_mark(arena);
    int64_t row = s->H * s->D, keys = s->S * row, chunks = row_chunks(s);
    real *scratch = ARENA_ARRAY(arena, real, omp_get_max_threads() * work_size(s, true));
    real *drs = r ? ARENA_ARRAY(arena, real, chunks * keys) : NULL; /* [chunks, S, H, D] */
    real *biases = ARENA_ARRAY(arena, real, chunks * 2 * row);      /* [chunks, 2, H, D] */
    if (r) ops->fill(drs, 0, chunks * keys);
    ops->fill(biases, 0, chunks * 2 * row);
    ops->fill(dk, 0, s->B * keys);
    ops->fill(dv, 0, s->B * keys);
#pragma omp parallel
    {
        struct work w = work_of(scratch, s, true);
#pragma omp for schedule(static) collapse(2)
        for (int64_t c = 0; c < chunks; ++c)
            for (int64_t h = 0; h < s->H; ++h)
                for (int64_t b = c * s->B / chunks; b < (c + 1) * s->B / chunks; ++b) {
                    int64_t head_at = h * s->D, at = b * s->T * row + head_at,
                            key = b * keys + first_key(s, b) * row + head_at;
                    struct head head = {
                        .dq = dq + at,
                        .dk = dk + key,
                        .dv = dv + key,
                        .dr = r ? drs + c * keys + head_at : NULL,
                        .dbias_w = biases + c * 2 * row + head_at,
                        .dbias_r = biases + (c * 2 + 1) * row + head_at,
                        .dout = dout + at,
                        .out = out + at,
                        .lse = lse + (b * s->H + h) * s->T,
                        .q = q + at,
                        .k = k + key,
                        .v = v + key,
                        .r = r ? r + head_at : NULL,
                        .bias_w = r ? bias_w + head_at : NULL,
                        .bias_r = r ? bias_r + head_at : NULL,
                    };
                    clear_padding(head.dq, b, s);
                    for (int64_t t0 = first_query(s, b); t0 < s->T; t0 += BLOCK) backward_block(&w, &head, b, h, t0, s);
                }
    }
    if (r) {
        ops->copy(dr, drs, keys);
        for (int64_t c = 1; c < chunks; ++c) ops->add(dr, dr, drs + c * keys, keys);
        for (int64_t c = 0; c < chunks; ++c) {
            ops->add(dbias_w, dbias_w, biases + c * 2 * row, row);
            ops->add(dbias_r, dbias_r, biases + (c * 2 + 1) * row, row);
        }
    }
    arena_release(arena, mark);
}

void cpu_attention_ops(struct ops *table) {
    table->attention_forward = attention_forward;
    table->attention_backward = attention_backward;
}
