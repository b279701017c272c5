#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

static void embedding_forward(real *out, const real *weight, const int32_t *ids, double scale, int64_t N, int64_t D) {
    real factor = (real)scale;
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t n = 0; n < N; ++n)
        for (int64_t i = 0; i < D; ++i) out[n * D + i] = factor * weight[ids[n] * D + i];
}

/* A thread owns columns and walks all rows in order: no two add to one sum. */
static void embedding_backward(real *dweight, const real *dout, const int32_t *ids, double scale, struct arena *scratch,
                               int64_t N, int64_t V, int64_t D) {
    (void)scratch, (void)V;
    real factor = (real)scale;
#pragma omp parallel for schedule(static) if (N * D > PARALLEL_MIN)
    for (int64_t block = 0; block < (D + 15) / 16; ++block) {
        int64_t first = block * 16, end = first + 16 < D ? first + 16 : D;
        for (int64_t n = 0; n < N; ++n)
            for (int64_t i = first; i < end; ++i) dweight[ids[n] * D + i] += factor * dout[n * D + i];
    }
}

static void sinusoid(real *out, int64_t first, int64_t step, struct dropout dropout, int64_t N, int64_t D) {
    int64_t half = D / 2;
#pragma omp parallel for schedule(static) if (N * D > 1024)
    for (int64_t n = 0; n < N; ++n) {
        int64_t distance = first + n * step;
        for (int64_t i = 0; i < half; ++i) {
            double angle = (double)distance * pow(10000, -2.0 * (double)i / (double)D);
            out[n * D + i] = (real)sin(angle);
            out[n * D + half + i] = (real)cos(angle);
        }
        if (dropout.p > 0) dropout_row(out + n * D, &dropout, (uint32_t)distance, 0, D);
    }
}

void cpu_embedding_ops(struct ops *table) {
    table->embedding_forward = embedding_forward;
    table->embedding_backward = embedding_backward;
    table->sinusoid = sinusoid;
}
