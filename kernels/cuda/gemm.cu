/* Matrix products by cuBLAS. In bf16 a kernel first rounds the factors, each once per operation; sums and results are
 * float in both precisions, and no fp32 product is left to TF32. */
#include "kernels/cuda/cast.h"

enum { THREADS = 256 };

static void gemm_batched(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
                         int64_t stride_a, const real *b, int64_t ldb, int64_t stride_b, double beta, real *c,
                         int64_t ldc, int64_t stride_c, int64_t count) {
    bool empty = N == 0 || O == 0; /* then no factor is read */
    struct factor left = factor_of(a, lda, stride_a), right = factor_of(b, ldb, stride_b);
    if (!empty) {
        left = cast_factor(WORKSPACE_GEMM_A, false, a, lda, stride_a, count, ta ? I : N, ta ? N : I);
        right = cast_factor(WORKSPACE_GEMM_B, false, b, ldb, stride_b, count, tb ? O : I, tb ? I : O);
    }
    multiply_factors(ta, tb, N, O, I, alpha, left, right, beta, c, ldc, stride_c, count);
}

static void gemm(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
                 const real *b, int64_t ldb, double beta, real *c, int64_t ldc) {
    gemm_batched(ta, tb, N, O, I, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);
}

/* The last group that begins at row n or before: of those that begin there the one that isn't empty. */
__device__ static int64_t group_of(const int64_t *begin, int64_t count, int64_t n) {
    int64_t low = 0, high = count;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (begin[middle] <= n)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* out [n] = bias [group of n], rows first .. end - 1, a warp a row. */
template <int WIDTH>
__global__ static void spread_bias(float *out, const float *bias, const int64_t *begin, int64_t count, int64_t first,
                                   int64_t end, int64_t O) {
    int lane = threadIdx.x % WARP;
    int64_t step = (int64_t)gridDim.x * blockDim.x / WARP;
    for (int64_t n = first + ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP; n < end; n += step) {
        const float *from = bias + (begin ? group_of(begin, count, n) : 0) * O;
        for (int64_t o = lane * WIDTH; o < O; o += WARP * WIDTH) {
            float x[WIDTH];
            load<WIDTH>(x, from + o);
            store<WIDTH>(out + n * O + o, x);
        }
    }
}

/* partial [count, parts, O]: sums over the rows of one part of a group, WARP WIDTH columns a warp. */
template <int WIDTH>
__global__ static void sum_parts(float *partial, const float *in, const int64_t *begin, int64_t count, int64_t N,
                                 int64_t parts, int64_t O) {
    int lane = threadIdx.x % WARP;
    int64_t tiles = (O + WARP * WIDTH - 1) / (WARP * WIDTH), step = (int64_t)gridDim.x * blockDim.x / WARP;
    int64_t unit = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    for (; unit < count * parts * tiles; unit += step) {
        int64_t slot = unit / tiles, group = slot / parts, part = slot - group * parts;
        int64_t o = (unit - slot * tiles) * WARP * WIDTH + lane * WIDTH;
        int64_t first = begin ? begin[group] : 0, rows = begin ? begin[group + 1] - first : N;
        float sum[WIDTH] = {0};
        if (o < O) {
            int64_t end = first + rows * (part + 1) / parts;
            for (int64_t n = first + rows * part / parts; n < end; ++n) {
                float x[WIDTH];
                load<WIDTH>(x, in + n * O + o);
                for (int e = 0; e < WIDTH; ++e) sum[e] += x[e];
            }
            store<WIDTH>(partial + slot * O + o, sum);
        }
    }
}

/* dbias [count, O] += sums of columns of dout, 0 for an empty group. Parts are as many as give every multiprocessor its
 * share of warps, but not below 16 rows, so that the partial sums stay a small part of what is read. */
static void add_column_sums(float *dbias, const float *dout, const struct groups *groups, int64_t O) {
    bool wide = rows_of_quads(dout, O);
    int64_t N = groups->begin[groups->count] - groups->begin[0], width = wide ? 4 * WARP : WARP;
    if (N == 0 || O == 0) return;
    int64_t columns = groups->count * ((O + width - 1) / width);
    int64_t parts = (int64_t)cuda.processors * 16 / columns, most = N / groups->count / 16;
    parts = parts > most ? most : parts;
    parts = parts < 1 ? 1 : parts;
    float *partial = (float *)cuda_workspace(WORKSPACE_PARTIAL, (size_t)(groups->count * parts * O) * sizeof *partial);
    unsigned blocks = blocks_for(columns * parts * WARP, THREADS);
    if (wide)
        LAUNCH((sum_parts<4>), blocks, THREADS, partial, dout, groups->begin_here, groups->count, N, parts, O);
    else
        LAUNCH((sum_parts<1>), blocks, THREADS, partial, dout, groups->begin_here, groups->count, N, parts, O);
    add_partials(dbias, partial, O, groups->count, parts, O);
}

/* The bias is there first, and the product adds to it: in bytes the same as a pass over the product (one more write and
 * one more read of out), but the read is the product's, behind its arithmetic. */
static void place_bias(float *out, const float *bias, const struct groups *groups, int64_t O) {
    int64_t first = groups->begin[0], end = groups->begin[groups->count];
    if (first == end || O == 0) return;
    unsigned blocks = blocks_for((end - first) * WARP, THREADS);
    if (rows_of_quads(out, O) && rows_of_quads(bias, O))
        LAUNCH((spread_bias<4>), blocks, THREADS, out, bias, groups->begin_here, groups->count, first, end, O);
    else
        LAUNCH((spread_bias<1>), blocks, THREADS, out, bias, groups->begin_here, groups->count, first, end, O);
}

/* A product per group that has rows: cublasGemmGroupedBatchedEx rounds results of bf16 factors to bf16 too, and
 * wants its pointers in the device's memory. One cast, and one pass over the bias, serve all groups. begin_here
 * NULL: one group. */
static void forward(bool exact, real *out, const real *in, const real *weight, const real *bias,
                    const struct groups *groups, int64_t O, int64_t I) {
    const int64_t *begin = groups->begin;
    int64_t first = begin[0], N = begin[groups->count] - first;
    if (N == 0 || O == 0) return;
    struct factor rows = cast_factor(WORKSPACE_GEMM_A, exact, in + first * I, I, 0, 1, N, I);
    struct factor weights = cast_factor(WORKSPACE_GEMM_B, exact, weight, I, 0, 1, groups->count * O, I);
    if (bias) place_bias(out, bias, groups, O);
    for (int64_t i = 0; i < groups->count; ++i)
        multiply_factors(false, true, begin[i + 1] - begin[i], O, I, 1, factor_row(rows, begin[i] - first),
                         factor_row(weights, i * O), bias ? 1 : 0, out + begin[i] * O, O, 0, 1);
}

static void backward(bool exact, real *din, bool add_din, real *dweight, real *dbias, const real *dout, const real *in,
                     const real *weight, const struct groups *groups, int64_t O, int64_t I) {
    const int64_t *begin = groups->begin;
    int64_t first = begin[0], N = begin[groups->count] - first;
    if (N == 0) return;
    struct factor gradient = factor_of(dout + first * O, O, 0);
    if (din || dweight) gradient = cast_factor(WORKSPACE_GEMM_A, exact, dout + first * O, O, 0, 1, N, O);
    if (din) {
        struct factor weights = cast_factor(WORKSPACE_GEMM_B, exact, weight, I, 0, 1, groups->count * O, I);
        for (int64_t i = 0; i < groups->count; ++i)
            multiply_factors(false, false, begin[i + 1] - begin[i], I, O, 1, factor_row(gradient, begin[i] - first),
                             factor_row(weights, i * O), add_din ? 1 : 0, din + begin[i] * I, I, 0, 1);
    }
    if (dweight) { /* the weights' copy is no longer needed: the same slot */
        struct factor rows = cast_factor(WORKSPACE_GEMM_B, exact, in + first * I, I, 0, 1, N, I);
        for (int64_t i = 0; i < groups->count; ++i)
            if (begin[i + 1] > begin[i])
                multiply_factors(true, false, O, I, begin[i + 1] - begin[i], 1, factor_row(gradient, begin[i] - first),
                                 factor_row(rows, begin[i] - first), 1, dweight + i * O * I, I, 0, 1);
    }
    if (dbias) add_column_sums(dbias, dout, groups, O);
}

static void linear_forward(real *out, const real *in, const real *weight, const real *bias, int64_t N, int64_t O,
                           int64_t I) {
    int64_t begin[2] = {0, N};
    struct groups all = {1, begin, NULL};
    forward(false, out, in, weight, bias, &all, O, I);
}

static void linear_backward(real *din, bool add_din, real *dweight, real *dbias, const real *dout, const real *in,
                            const real *weight, int64_t N, int64_t O, int64_t I) {
    int64_t begin[2] = {0, N};
    struct groups all = {1, begin, NULL};
    backward(false, din, add_din, dweight, dbias, dout, in, weight, &all, O, I);
}

static void linear_exact_forward(real *out, const real *in, const real *weight, const real *bias, int64_t N, int64_t O,
                                 int64_t I) {
    int64_t begin[2] = {0, N};
    struct groups all = {1, begin, NULL};
    forward(true, out, in, weight, bias, &all, O, I);
}

static void linear_exact_backward(real *din, bool add_din, real *dweight, real *dbias, const real *dout, const real *in,
                                  const real *weight, int64_t N, int64_t O, int64_t I) {
    int64_t begin[2] = {0, N};
    struct groups all = {1, begin, NULL};
    backward(true, din, add_din, dweight, dbias, dout, in, weight, &all, O, I);
}

static void grouped_linear_forward(real *out, const real *in, const real *weight, const real *bias,
                                   const struct groups *groups, int64_t O, int64_t I) {
    forward(false, out, in, weight, bias, groups, O, I);
}

static void grouped_linear_backward(real *din, real *dweight, real *dbias, const real *dout, const real *in,
                                    const real *weight, const struct groups *groups, int64_t O, int64_t I) {
    backward(false, din, false, dweight, dbias, dout, in, weight, groups, O, I);
}

void cuda_gemm_ops(struct ops *table) {
    table->gemm = gemm;
    table->gemm_batched = gemm_batched;
    table->linear_forward = linear_forward;
    table->linear_backward = linear_backward;
    table->linear_exact_forward = linear_exact_forward;
    table->linear_exact_backward = linear_exact_backward;
    table->grouped_linear_forward = grouped_linear_forward;
    table->grouped_linear_backward = grouped_linear_backward;
}
