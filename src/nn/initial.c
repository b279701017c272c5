#include "nn/initial.h"

#include <math.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"

/* Two normal numbers per word pair (Box and Muller 1958); words 0 and 1 give elements 4q, 4q + 1, words 2 and 3 the
 * others. */
static double normal_at(struct rng_place place, int64_t i) {
    uint32_t words[4];
    rng_words(words, place, (uint32_t)(i >> 34), (uint32_t)(i >> 2));
    const uint32_t *pair = words + (i & 2);
    double radius = sqrt(-2 * log(rng_uniform(pair[0]))), angle = 2 * M_PI * rng_uniform(pair[1]);
    return i & 1 ? radius * sin(angle) : radius * cos(angle);
}

static double uniform_at(struct rng_place place, int64_t i) {
    uint32_t words[4];
    rng_words(words, place, (uint32_t)(i >> 34), (uint32_t)(i >> 2));
    return rng_uniform(words[i & 3]);
}

/* Gram-Schmidt, twice for accuracy, over the shorter axis of a normal matrix. */
static void fill_orthogonal(real *out, double gain, struct rng_place place, int64_t rows, int64_t columns) {
    int64_t count = rows < columns ? rows : columns, length = rows < columns ? columns : rows;
    double *v = malloc((size_t)(count * length) * sizeof *v); /* [count, length] */
    if (!v) FATAL("out of memory");
    for (int64_t i = 0; i < count; ++i) {
        double *x = v + i * length, norm = 0;
        for (int64_t j = 0; j < length; ++j) x[j] = normal_at(place, i * length + j);
        for (int pass = 0; pass < 2; ++pass)
            for (int64_t other = 0; other < i; ++other) {
                double dot = 0;
                for (int64_t j = 0; j < length; ++j) dot += x[j] * v[other * length + j];
                for (int64_t j = 0; j < length; ++j) x[j] -= dot * v[other * length + j];
            }
        for (int64_t j = 0; j < length; ++j) norm += x[j] * x[j];
        for (int64_t j = 0; j < length; ++j) x[j] /= sqrt(norm);
    }
    for (int64_t i = 0; i < count; ++i)
        for (int64_t j = 0; j < length; ++j)
            out[rows < columns ? i * columns + j : j * columns + i] = (real)(gain * v[i * length + j]);
    free(v);
}

void initial_fill(real *out, const struct initial *initial, uint64_t seed, const char *name, int64_t first, int64_t n,
                  int64_t rows) {
    struct rng_place place = rng_place(seed, hash_string(name), RNG_INIT, 0, 0);
    if (initial->kind == INITIAL_ORTHOGONAL) {
        CHECK(first == 0 && n % rows == 0);
        fill_orthogonal(out, initial->a, place, rows, n / rows);
        return;
    }
    for (int64_t i = 0; i < n; ++i) switch (initial->kind) {
        case INITIAL_NORMAL: out[i] = (real)(initial->a + initial->b * normal_at(place, first + i)); break;
        case INITIAL_UNIFORM:
            out[i] = (real)(initial->a + (initial->b - initial->a) * uniform_at(place, first + i));
            break;
        default: out[i] = (real)initial->a;
        }
}
