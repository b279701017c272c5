/* Cross-entropy and the softmaxes of routing. Compiled with the finite-math flags for vector exp. */
#include <math.h>

#include "kernels/cpu/cpu.h"

#ifdef REAL_DOUBLE
#define EXP exp
#else
#define EXP expf
#endif

static void cross_entropy_forward(real *losses, real *lse, const real *logits, const int32_t *targets, int64_t N,
                                  int64_t V) {
#pragma omp parallel for schedule(static) if (N * V > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        const real *x = logits + n * V;
        real top = x[0], sum = 0;
#pragma omp simd reduction(max : top)
        for (int64_t i = 0; i < V; ++i) top = x[i] > top ? x[i] : top;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < V; ++i) sum += EXP(x[i] - top);
        lse[n] = top + (real)log((double)sum);
        losses[n] = targets[n] < 0 ? lse[n] : lse[n] - x[targets[n]];
    }
}

static void cross_entropy_backward(real *dlogits, const real *logits, const real *lse, const int32_t *targets,
                                   double scale, int64_t N, int64_t V) {
    real factor = (real)scale;
#pragma omp parallel for schedule(static) if (N * V > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        const real *x = logits + n * V;
        real *dx = dlogits + n * V;
#pragma omp simd
        for (int64_t i = 0; i < V; ++i) dx[i] = factor * EXP(x[i] - lse[n]);
        if (targets[n] >= 0) dx[targets[n]] -= factor;
    }
}

static void cross_entropy_join(real *losses, real *lse, const real *parts, int64_t P, int64_t N) {
#pragma omp parallel for simd schedule(static) if (N * P > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        real top = parts[N + n], sum = 0, picked = 0;
        for (int64_t p = 1; p < P; ++p) top = parts[(2 * p + 1) * N + n] > top ? parts[(2 * p + 1) * N + n] : top;
        for (int64_t p = 0; p < P; ++p) {
            sum += EXP(parts[(2 * p + 1) * N + n] - top);
            picked += parts[(2 * p + 1) * N + n] - parts[2 * p * N + n];
        }
        lse[n] = top + (real)log((double)sum);
        losses[n] = lse[n] - picked;
    }
}

static void top_k(int32_t *experts, const real *scores, int64_t N, int64_t E, int64_t K) {
#pragma omp parallel for schedule(static) if (N * E > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        const real *s = scores + n * E;
        int32_t *chosen = experts + n * K;
        for (int64_t j = 0; j < K; ++j) { /* the best of those after the last chosen in (score, lower index) order */
            int32_t best = -1, last = j ? chosen[j - 1] : -1;
            for (int32_t e = 0; e < E; ++e) {
                bool after = last < 0 || s[e] < s[last] || (s[e] == s[last] && e > last);
                if (after && (best < 0 || s[e] > s[best])) best = e;
            }
            chosen[j] = best < 0 ? (int32_t)j : best; /* only NaN scores leave none: the loss check reports them */
        }
    }
}

static void route_weights_forward(real *weights, const real *scores, const int32_t *experts, bool over_all, int64_t N,
                                  int64_t E, int64_t K) {
#pragma omp parallel for schedule(static) if (N * E > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        const real *s = scores + n * E;
        const int32_t *chosen = experts + n * K;
        real top = s[chosen[0]], sum = 0;
        for (int64_t e = 0; over_all && e < E; ++e)
            top = s[e] > top ? s[e] : top; /* replayed routes need not be the best */
        for (int64_t j = 0; j < K; ++j) top = s[chosen[j]] > top ? s[chosen[j]] : top;
        if (over_all)
            for (int64_t e = 0; e < E; ++e) sum += EXP(s[e] - top);
        else
            for (int64_t j = 0; j < K; ++j) sum += EXP(s[chosen[j]] - top);
        for (int64_t j = 0; j < K; ++j) weights[n * K + j] = EXP(s[chosen[j]] - top) / sum;
    }
}

/* With p the softmax: ds = p (dw - sum dw p), dw being 0 where an expert was not chosen. */
static void route_weights_backward(real *dscores, const real *dweights, const real *weights, const real *scores,
                                   const int32_t *experts, bool over_all, int64_t N, int64_t E, int64_t K) {
#pragma omp parallel for schedule(static) if (N * E > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        const real *s = scores + n * E, *w = weights + n * K, *dw = dweights + n * K;
        const int32_t *chosen = experts + n * K;
        real *ds = dscores + n * E, top = s[0], sum = 0, dot = 0;
        for (int64_t j = 0; j < K; ++j) dot += dw[j] * w[j];
        for (int64_t e = 0; e < E; ++e) top = s[e] > top ? s[e] : top;
        for (int64_t e = 0; e < E; ++e) sum += ds[e] = over_all ? EXP(s[e] - top) : 0;
        for (int64_t e = 0; over_all && e < E; ++e) ds[e] *= -dot / sum;
        for (int64_t j = 0; j < K; ++j) ds[chosen[j]] += w[j] * (over_all ? dw[j] : dw[j] - dot);
    }
}

static void balance_forward(double *sums, const real *scores, double tau, int64_t N, int64_t E) {
    for (int64_t e = 0; e < E; ++e) sums[e] = 0;
    real inverse = (real)(1 / tau);
    for (int64_t n = 0; n < N; ++n) {
        const real *s = scores + n * E;
        real top = s[0], sum = 0;
        for (int64_t e = 0; e < E; ++e) top = s[e] > top ? s[e] : top;
        for (int64_t e = 0; e < E; ++e) sum += EXP((s[e] - top) * inverse);
        for (int64_t e = 0; e < E; ++e) sums[e] += (double)(EXP((s[e] - top) * inverse) / sum);
    }
}

static void balance_backward(real *dscores, const real *scores, const double *coefficient, double scale, double tau,
                             int64_t N, int64_t E) {
    real inverse = (real)(1 / tau), factor = (real)(scale / tau);
#pragma omp parallel for schedule(static) if (N * E > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        const real *s = scores + n * E;
        real *ds = dscores + n * E, top = s[0], sum = 0, dot = 0;
        for (int64_t e = 0; e < E; ++e) top = s[e] > top ? s[e] : top;
        for (int64_t e = 0; e < E; ++e) {
            real p = EXP((s[e] - top) * inverse);
            sum += p;
            dot += p * (real)coefficient[e];
        }
        dot /= sum;
        for (int64_t e = 0; e < E; ++e)
            ds[e] += factor * EXP((s[e] - top) * inverse) / sum * ((real)coefficient[e] - dot);
    }
}

static void mix_forward(real *out, real *gates, const real *logits, const real *a, const real *b, int64_t N,
                        int64_t D) {
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        real difference = logits[2 * n] - logits[2 * n + 1]; /* exp of what is not positive cannot overflow */
        real e = EXP(difference > 0 ? -difference : difference), large = 1 / (1 + e), small = e * large;
        real g0 = difference > 0 ? large : small, g1 = difference > 0 ? small : large;
        gates[2 * n] = g0;
        gates[2 * n + 1] = g1;
        for (int64_t i = n * D; i < (n + 1) * D; ++i) out[i] = g0 * a[i] + g1 * b[i];
    }
}

static void mix_backward(real *da, real *db, real *dlogits, const real *dout, const real *gates, const real *a,
                         const real *b, int64_t N, int64_t D) {
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n) {
        real g0 = gates[2 * n], g1 = gates[2 * n + 1], dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = n * D; i < (n + 1) * D; ++i) {
            dot += dout[i] * (a[i] - b[i]);
            da[i] = g0 * dout[i];
            db[i] = g1 * dout[i];
        }
        dlogits[2 * n] = g0 * g1 * dot;
        dlogits[2 * n + 1] = -g0 * g1 * dot;
    }
}

void cpu_softmax_ops(struct ops *table) {
    table->cross_entropy_forward = cross_entropy_forward;
    table->cross_entropy_backward = cross_entropy_backward;
    table->cross_entropy_join = cross_entropy_join;
    table->top_k = top_k;
    table->route_weights_forward = route_weights_forward;
    table->route_weights_backward = route_weights_backward;
    table->balance_forward = balance_forward;
    table->balance_backward = balance_backward;
    table->mix_forward = mix_forward;
    table->mix_backward = mix_backward;
}
