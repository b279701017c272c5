/* One number from a whole vector. */
#include <math.h>

#include "kernels/cuda/rows.h"

/* Blocks of a vector of n: of its length alone, so that the order of the sum is. */
static const int64_t MOST_BLOCKS = 1024, OF_A_BLOCK = 16 * THREADS;

static unsigned blocks_of(int64_t n) {
    int64_t blocks = (n + OF_A_BLOCK - 1) / OF_A_BLOCK;
    return (unsigned)(blocks < 1 ? 1 : blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS);
}

/* What stands in the way of a sum, to be added up: the values, their squares, or 1 of each that is not finite. */
enum term { TERM_VALUE, TERM_SQUARE, TERM_NOT_FINITE };

template <int TERM> __device__ static inline double term_of(float x) {
    if (TERM == TERM_NOT_FINITE) return isfinite(x) ? 0 : 1;
    return TERM == TERM_SQUARE ? (double)x * x : x;
}

/* partial [blocks] */
template <int W, int TERM>
static __global__ void sum_kernel(double *__restrict__ partial, const float *__restrict__ in, int64_t n) {
    SHARED(double, of_warp, [WARPS]);
    double sum = 0;
    for (int64_t i = thread_index(); i < n / W; i += thread_count()) {
        floats<W> x = load<W>(in + i * W);
        for (int k = 0; k < W; ++k) sum += term_of<TERM>(x.x[k]);
    }
    if (W > 1 && thread_index() < n % W) sum += term_of<TERM>(in[n / W * W + thread_index()]);
    sum = warp_sum(sum);
    if (lane_index() == 0) of_warp[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < WARPS; ++warp) sum += of_warp[warp];
        partial[blockIdx.x] = sum;
    }
}

/* One warp. */
static __global__ void sum_join(double *__restrict__ out, const double *__restrict__ partial, int count) {
    double sum = 0;
    for (int i = lane_index(); i < count; i += WARP) sum += partial[i];
    sum = warp_sum(sum);
    if (lane_index() == 0) *out = sum;
}

template <int TERM> static void sum_of(double *out, const real *in, int64_t n) {
    unsigned blocks = blocks_of(n);
    double *partial = (double *)cuda_workspace(WORKSPACE_PARTIAL, MOST_BLOCKS * sizeof *partial);
    if (in_fours(0, in))
        LAUNCH((sum_kernel<4, TERM>), blocks, THREADS, partial, in, n);
    else
        LAUNCH((sum_kernel<1, TERM>), blocks, THREADS, partial, in, n);
    LAUNCH(sum_join, 1, WARP, out, (const double *)partial, (int)blocks);
}

static void sum(double *out, const real *in, int64_t n) { sum_of<TERM_VALUE>(out, in, n); }

static void sum_squares(double *out, const real *in, int64_t n) { sum_of<TERM_SQUARE>(out, in, n); }

static bool all_finite(const real *in, int64_t n) {
    double count, *there = (double *)cuda_workspace(WORKSPACE_PARTIAL, (MOST_BLOCKS + 1) * sizeof *there) + MOST_BLOCKS;
    sum_of<TERM_NOT_FINITE>(there, in, n);
    device->download(&count, there, sizeof count);
    return count == 0;
}

void cuda_reduce_ops(struct ops *table) {
    table->sum = sum;
    table->sum_squares = sum_squares;
    table->all_finite = all_finite;
}
