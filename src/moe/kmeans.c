#include "moe/kmeans.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { LLOYD_STEPS = 20 };

static double squared_distance(const double *a, const double *b, int64_t D) {
    double sum = 0;
    for (int64_t i = 0; i < D; ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

static double draw(struct rng_place place, int64_t c) {
    uint32_t words[4];
    rng_words(words, place, (uint32_t)c, 0);
    return rng_uniform(words[0]);
}

/* distance [N]: to the nearest centroid so far. Each new one is drawn with a probability proportional to it. */
static void plus_plus(double *centroids, double *distance, const double *samples, int64_t N, int64_t C, int64_t D,
                      struct rng_place place) {
    for (int64_t j = 0; j < N; ++j) distance[j] = INFINITY;
    for (int64_t c = 0; c < C; ++c) {
        int64_t chosen = c ? c % N : (int64_t)(draw(place, 0) * (double)N);
        double total = 0, passed = 0;
        for (int64_t j = 0; j < N && c; ++j) total += distance[j];
        if (total > 0) {
            double wanted = draw(place, c) * total;
            for (chosen = 0; chosen < N - 1; ++chosen)
                if ((passed += distance[chosen]) > wanted) break;
        }
        memcpy(centroids + c * D, samples + chosen * D, (size_t)D * sizeof *centroids);
#pragma omp parallel for schedule(static)
        for (int64_t j = 0; j < N; ++j)
            distance[j] = fmin(distance[j], squared_distance(samples + j * D, centroids + c * D, D));
    }
}

static void assign(int64_t *cluster, double *distance, const double *centroids, const double *samples, int64_t N,
                   int64_t C, int64_t D) {
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < N; ++j) {
        distance[j] = INFINITY;
        for (int64_t c = 0; c < C; ++c) {
            double d = squared_distance(samples + j * D, centroids + c * D, D);
            if (d < distance[j]) {
                distance[j] = d;
                cluster[j] = c;
            }
        }
    }
}

/* Means; an empty cluster takes the farthest sample that no other empty one has taken. */
static void move(double *centroids, double *distance, int64_t *count, const int64_t *cluster, const double *samples,
                 int64_t N, int64_t C, int64_t D) {
    memset(count, 0, (size_t)C * sizeof *count);
    memset(centroids, 0, (size_t)(C * D) * sizeof *centroids);
    for (int64_t j = 0; j < N; ++j) {
        count[cluster[j]]++;
        for (int64_t i = 0; i < D; ++i) centroids[cluster[j] * D + i] += samples[j * D + i];
    }
    for (int64_t c = 0; c < C; ++c) {
        for (int64_t i = 0; i < D && count[c]; ++i) centroids[c * D + i] /= (double)count[c];
        if (count[c]) continue;
        int64_t farthest = 0;
        for (int64_t j = 1; j < N; ++j)
            if (distance[j] > distance[farthest]) farthest = j;
        memcpy(centroids + c * D, samples + farthest * D, (size_t)D * sizeof *centroids);
        distance[farthest] = -1;
    }
}

void kmeans(double *centroids, const double *samples, int64_t N, int64_t C, int64_t D, struct rng_place place) {
    double *distance = malloc((size_t)N * sizeof *distance);
    int64_t *cluster = calloc((size_t)(N + C), sizeof *cluster), *count = cluster + N;
    if (!distance || !cluster) FATAL("out of memory");
    plus_plus(centroids, distance, samples, N, C, D, place);
    for (int step = 0; step < LLOYD_STEPS; ++step) {
        assign(cluster, distance, centroids, samples, N, C, D);
        move(centroids, distance, count, cluster, samples, N, C, D);
    }
    free(distance);
    free(cluster);
}
