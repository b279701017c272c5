#include <math.h>

#include "kernels/cuda/rows.h"

static __global__ void clip(double *scale, double *norm, const double *squares, double most) {
    double length = sqrt(squares[0] + squares[1] + squares[2]), wanted = most / (length + 1e-6);
    *norm = length;
    *scale = !isfinite(length) ? (double)NAN : wanted < 1 ? wanted : 1;
}

static void clip_scale(double *scale, double *norm, const double *squares, double most) {
    LAUNCH(clip, 1, 1, scale, norm, squares, most);
}

struct adapting {
    float *parameter, *m, *v;
    const float *gradient;
    const double *scale;
    float b1, b2, c1, c2, step, root, epsilon;
    template <int W> __device__ void at(int64_t i) const {
        double factor = *scale;
        if (!isfinite(factor)) return;
        floats<W> p = load<W>(parameter + i), first = load<W>(m + i), second = load<W>(v + i),
                  g = load<W>(gradient + i);
        for (int k = 0; k < W; ++k) {
            float d = (float)factor * g.x[k];
            first.x[k] = b1 * first.x[k] + c1 * d;
            second.x[k] = b2 * second.x[k] + c2 * d * d;
            p.x[k] -= step * first.x[k] / (sqrtf(second.x[k]) * root + epsilon);
        }
        store<W>(parameter + i, p), store<W>(m + i, first), store<W>(v + i, second);
    }
};

static void adam(real *parameter, real *m, real *v, const real *gradient, const double *scale, double lr, double beta1,
                 double beta2, double epsilon, double correction1, double correction2, int64_t n) {
    struct adapting f = {parameter,
                         m,
                         v,
                         gradient,
                         scale,
                         (float)beta1,
                         (float)beta2,
                         (float)(1 - beta1),
                         (float)(1 - beta2),
                         (float)(lr / correction1),
                         (float)(1 / sqrt(correction2)),
                         (float)epsilon};
    flat_launch(f, in_fours(0, parameter, m, v, gradient), n);
}

void cuda_optimizer_ops(struct ops *table) {
    table->clip_scale = clip_scale;
    table->adam = adam;
}
