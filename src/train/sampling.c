#include "train/sampling.h"

#include <math.h>
#include <stdlib.h>

#include "base/log.h"

struct candidate {
    double weight; /* exp((score - best) / temperature) */
    int32_t symbol;
};

static int32_t best_of(const real *scores, int64_t V) {
    int32_t best = 0;
    for (int32_t i = 1; i < V; ++i)
        if (scores[i] > scores[best]) best = i;
    return best;
}

static int by_weight(const void *left, const void *right) {
    const struct candidate *a = left, *b = right;
    if (a->weight != b->weight) return a->weight > b->weight ? -1 : 1;
    return a->symbol < b->symbol ? -1 : 1;
}

/* How many of the sorted candidates are left, at least one. */
static int64_t cut(const struct sampling *sampling, const struct candidate *sorted, int64_t n) {
    int64_t kept = sampling->top_k && sampling->top_k < n ? sampling->top_k : n, i = 0;
    double sum = 0, reached = 0;
    for (int64_t j = 0; j < kept; ++j) sum += sorted[j].weight;
    while (i < kept && reached < sampling->top_p * sum) reached += sorted[i++].weight;
    return i ? i : 1;
}

int32_t sample(const struct sampling *sampling, const real *scores, int64_t V, double uniform) {
    int32_t best = best_of(scores, V);
    if (sampling->temperature <= 0) return best;
    struct candidate *candidates = malloc((size_t)V * sizeof *candidates);
    if (!candidates) FATAL("out of memory");
    for (int32_t i = 0; i < V; ++i)
        candidates[i] = (struct candidate){exp((double)(scores[i] - scores[best]) / sampling->temperature), i};
    int64_t n = V;
    if (sampling->top_k || sampling->top_p < 1) { /* sorting a large vocabulary is what costs */
        qsort(candidates, (size_t)V, sizeof *candidates, by_weight);
        n = cut(sampling, candidates, V);
    }
    double at = 0;
    for (int64_t i = 0; i < n; ++i) at += candidates[i].weight;
    at *= uniform;
    int32_t chosen = best;
    for (int64_t i = 0; i < n; ++i)
        if ((at -= candidates[i].weight) < 0) {
            chosen = candidates[i].symbol;
            break;
        }
    free(candidates);
    return chosen;
}
