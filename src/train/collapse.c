#include "train/collapse.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* LAPACK, inside OpenBLAS: eigenvalues w [n], ascending, of a symmetric matrix a [n, n], which is overwritten. The last
 * two arguments are what Fortran hands over for the lengths of the first two. */
void dsyev_(const char *vectors, const char *triangle, const int *n, double *a, const int *lda, double *w, double *work,
            const int *lwork, int *info, size_t vectors_length, size_t triangle_length);

/* Sums of squares that are this small beside the values they come from are rounding, not variance. */
static const double nothing = 1e-24;

static void *zeros(int64_t count, size_t size) {
    void *memory = calloc((size_t)(count ? count : 1), size);
    if (!memory) FATAL("out of memory");
    return memory;
}

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

static void add(double *sum, const double *a, int64_t n) {
    for (int64_t i = 0; i < n; ++i) sum[i] += a[i];
}

static double entropy(const double *counts, int64_t n) {
    double sum = 0, nats = 0;
    for (int64_t i = 0; i < n; ++i) sum += counts[i];
    if (!(sum > 0)) return NAN;
    for (int64_t i = 0; i < n; ++i)
        if (counts[i] > 0) nats -= counts[i] / sum * log(counts[i] / sum);
    return nats;
}

static void eigenvalues(double *w, double *matrix, int64_t n) {
    CHECK(n <= INT32_MAX / 66);
    int size = (int)n, room = 66 * size, info = 0; /* blocks of 64 */
    double *work = zeros(room, sizeof *work);
    dsyev_("N", "U", &size, matrix, &size, w, work, &room, &info, 1, 1);
    if (info) FATAL("dsyev: %d", info);
    free(work);
}

/* The smaller of X X^T and X^T X has all eigenvalues that are not 0. */
double collapse_effective_rank(const double *x, int64_t N, int64_t d) {
    int64_t n = N < d ? N : d;
    double *mean = zeros(d, sizeof *mean), *centred = zeros(N * d, sizeof *centred);
    double *matrix = zeros(n * n, sizeof *matrix), *w = zeros(n, sizeof *w), rank = NAN;
    for (int64_t i = 0; i < N; ++i) add(mean, x + i * d, d);
    for (int64_t i = 0; i < N; ++i)
        for (int64_t j = 0; j < d; ++j) centred[i * d + j] = x[i * d + j] - mean[j] / (double)N;
    double variance = dot(centred, centred, N * d);
    if (isfinite(variance) && variance > nothing * dot(x, x, N * d)) {
        CHECK(N <= INT32_MAX && d <= INT32_MAX);
        cblas_dsyrk(CblasColMajor, CblasUpper, N < d ? CblasTrans : CblasNoTrans, (int)n, (int)(N < d ? d : N), 1,
                    centred, (int)d, 0, matrix, (int)n);
        eigenvalues(w, matrix, n);
        rank = exp(entropy(w, n)); /* what rounding made negative does not count */
    }
    free(mean);
    free(centred);
    free(matrix);
    free(w);
    return rank;
}

/* Tokens by label: sorted [N, d], rows of label l from begin[l] to begin[l + 1]. */
static void sort(double *sorted, int64_t *begin, const real *x, const int64_t *labels, int64_t N, int64_t d,
                 int64_t L) {
    for (int64_t i = 0; i < N; ++i) begin[labels[i] + 1]++;
    for (int64_t l = 0; l < L; ++l) begin[l + 1] += begin[l];
    int64_t *next = zeros(L, sizeof *next);
    for (int64_t i = 0; i < N; ++i) {
        double *to = sorted + (begin[labels[i]] + next[labels[i]]++) * d;
        for (int64_t j = 0; j < d; ++j) to[j] = (double)x[i * d + j];
    }
    free(next);
}

/* ranks [L + 1]: of the tokens of each label, then of all. A thread each: in there BLAS has one thread. */
static void all_ranks(double *ranks, const double *sorted, const int64_t *begin, int64_t N, int64_t d, int64_t L) {
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i <= L; ++i) {
        int64_t l = L - i, first = i ? begin[l] : 0, count = i ? begin[l + 1] - first : N; /* the largest first */
        ranks[l] = count ? collapse_effective_rank(sorted + first * d, count, d) : NAN;
    }
}

static double rank_within(const double *ranks, const int64_t *begin, int64_t L) {
    double sum = 0, tokens = 0;
    for (int64_t l = 0; l < L; ++l) {
        double count = (double)(begin[l + 1] - begin[l]);
        if (isnan(ranks[l])) continue;
        sum += ranks[l] * count;
        tokens += count;
    }
    return tokens > 0 ? sum / tokens : NAN;
}

/* sum_l n_l |mean_l - mean|^2 is between; what remains of sum |x - mean|^2 is within, summed by itself. */
static double variance_ratio(const double *sorted, const int64_t *begin, int64_t N, int64_t d, int64_t L) {
    double *mean = zeros(2 * d, sizeof *mean), *own = mean + d, within = 0, between = 0;
    for (int64_t i = 0; i < N; ++i) add(mean, sorted + i * d, d);
    for (int64_t l = 0; l < L; ++l) {
        double count = (double)(begin[l + 1] - begin[l]);
        memset(own, 0, (size_t)d * sizeof *own);
        for (int64_t i = begin[l]; i < begin[l + 1]; ++i) add(own, sorted + i * d, d);
        for (int64_t j = 0; j < d && count > 0; ++j) {
            double step = own[j] / count - mean[j] / (double)N;
            between += count * step * step;
            for (int64_t i = begin[l]; i < begin[l + 1]; ++i) {
                double rest = sorted[i * d + j] - own[j] / count;
                within += rest * rest;
            }
        }
    }
    free(mean);
    return between > nothing * dot(sorted, sorted, N * d) ? within / between : NAN;
}

/* Makes unit vectors of the rows: the sum over pairs i != j of u_i . u_j is |sum u|^2 - sum |u|^2. */
static void cosines(struct collapse *out, double *sorted, const int64_t *begin, int64_t N, int64_t d, int64_t L) {
    double *all = zeros(2 * d, sizeof *all), *own = all + d, within = 0, pairs_within = 0, of_sums = 0;
    for (int64_t i = 0; i < N; ++i) {
        double norm = sqrt(dot(sorted + i * d, sorted + i * d, d));
        for (int64_t j = 0; j < d && norm > 0; ++j) sorted[i * d + j] /= norm;
    }
    for (int64_t l = 0; l < L; ++l) {
        int64_t count = begin[l + 1] - begin[l];
        memset(own, 0, (size_t)d * sizeof *own);
        for (int64_t i = begin[l]; i < begin[l + 1]; ++i) add(own, sorted + i * d, d);
        add(all, own, d);
        of_sums += dot(own, own, d);
        within += dot(own, own, d) - dot(sorted + begin[l] * d, sorted + begin[l] * d, count * d);
        pairs_within += (double)count * (double)(count - 1);
    }
    double pairs_between = (double)N * (double)(N - 1) - pairs_within;
    out->cosine_within = pairs_within > 0 ? within / pairs_within : NAN;
    out->cosine_between = pairs_between > 0 ? (dot(all, all, d) - of_sums) / pairs_between : NAN;
    free(all);
}

struct collapse collapse_of(const real *x, const int64_t *labels, int64_t N, int64_t d, int64_t L) {
    double *sorted = zeros(N * d, sizeof *sorted), *ranks = zeros(L + 1, sizeof *ranks);
    int64_t *begin = zeros(L + 1, sizeof *begin);
    sort(sorted, begin, x, labels, N, d, L);
    all_ranks(ranks, sorted, begin, N, d, L);
    struct collapse out = {.effective_rank = ranks[L],
                           .rank_within = rank_within(ranks, begin, L),
                           .variance_ratio = variance_ratio(sorted, begin, N, d, L)};
    cosines(&out, sorted, begin, N, d, L);
    free(sorted);
    free(ranks);
    free(begin);
    return out;
}

double collapse_shared_bits(const int64_t *a, int64_t A, const int64_t *b, int64_t B, int64_t N) {
    double *counts = zeros(A * B + A + B, sizeof *counts), *of_a = counts + A * B, *of_b = of_a + A;
    for (int64_t i = 0; i < N; ++i) {
        counts[a[i] * B + b[i]]++;
        of_a[a[i]]++;
        of_b[b[i]]++;
    }
    double bits = (entropy(of_a, A) + entropy(of_b, B) - entropy(counts, A * B)) / M_LN2;
    free(counts);
    return bits < 0 ? 0 : bits;
}

double collapse_changed(const int64_t *now, const int64_t *before, int64_t N) {
    double changed = 0;
    for (int64_t i = 0; i < N; ++i) changed += now[i] != before[i];
    return changed / (double)N;
}

double collapse_perplexity(const double *counts, int64_t n) { return exp(entropy(counts, n)); }

double collapse_dead(const double *counts, int64_t n) {
    double dead = 0;
    for (int64_t i = 0; i < n; ++i) dead += counts[i] == 0;
    return dead;
}

double collapse_most(const double *counts, int64_t n) {
    double sum = 0, most = 0;
    for (int64_t i = 0; i < n; ++i) {
        sum += counts[i];
        most = fmax(most, counts[i]);
    }
    return sum > 0 ? most / sum * (double)n : NAN;
}

double collapse_variation(const double *counts, int64_t n) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; ++i) sum += counts[i];
    for (int64_t i = 0; i < n; ++i) squares += (counts[i] - sum / (double)n) * (counts[i] - sum / (double)n);
    return sum > 0 ? sqrt(squares / (double)n) / sum * (double)n : NAN;
}
