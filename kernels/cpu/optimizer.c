#include <math.h>

#include "kernels/cpu/cpu.h"

static void clip_scale(double *scale, double *norm, const double *squares, double clip) {
    *norm = sqrt(squares[0] + squares[1] + squares[2]);
    *scale = isfinite(*norm) ? fmin(1, clip / (*norm + 1e-6)) : NAN;
}

static void adam(real *parameter, real *m, real *v, const real *gradient, const double *scale, double lr, double beta1,
                 double beta2, double epsilon, double correction1, double correction2, int64_t n) {
    if (!isfinite(*scale)) return;
    real factor = (real)*scale, b1 = (real)beta1, b2 = (real)beta2, c1 = (real)(1 - beta1), c2 = (real)(1 - beta2);
    real step = (real)(lr / correction1), root = (real)(1 / sqrt(correction2)), eps = (real)epsilon;
#pragma omp parallel for simd schedule(static) if (n > PARALLEL_MIN)
    for (int64_t i = 0; i < n; ++i) {
        real g = factor * gradient[i];
        m[i] = b1 * m[i] + c1 * g;
        v[i] = b2 * v[i] + c2 * g * g;
#ifdef REAL_DOUBLE
        parameter[i] -= step * m[i] / (sqrt(v[i]) * root + eps);
#else
        parameter[i] -= step * m[i] / (sqrtf(v[i]) * root + eps);
#endif
    }
}

void cpu_optimizer_ops(struct ops *table) {
    table->clip_scale = clip_scale;
    table->adam = adam;
}
