#include "kernels/cuda/rows.h"

struct filling {
    float *out, value;
    template <int W> __device__ void at(int64_t i) const {
        floats<W> x;
        for (int k = 0; k < W; ++k) x.x[k] = value;
        store<W>(out + i, x);
    }
};

static void fill(real *out, real value, int64_t n) { flat_launch(filling{out, value}, in_fours(0, out), n); }

static void copy(real *out, const real *in, int64_t n) {
    if (n > 0)
        CUDA(cudaMemcpyAsync(out, in, (size_t)n * sizeof *out, cudaMemcpyDeviceToDevice, cuda.stream[QUEUE_COMPUTE]));
}

template <bool ADD> struct row_copying {
    float *out;
    const float *in;
    int64_t out_stride, in_stride, D;
    template <int W> __device__ void at(int64_t i) const {
        int64_t row = i / D, column = i - row * D;
        float *to = out + row * out_stride + column;
        floats<W> x = load<W>(in + row * in_stride + column);
        if (ADD) {
            floats<W> there = load<W>(to);
            for (int k = 0; k < W; ++k) x.x[k] += there.x[k];
        }
        store<W>(to, x);
    }
};

static bool strides_in_fours(int64_t a, int64_t b) { return a % 4 == 0 && b % 4 == 0; }

static void copy_rows(real *out, int64_t out_stride, const real *in, int64_t in_stride, int64_t N, int64_t D) {
    bool fours = in_fours(D, out, in) && strides_in_fours(out_stride, in_stride);
    flat_launch(row_copying<false>{out, in, out_stride, in_stride, D}, fours, N * D);
}

static void add_rows(real *out, int64_t out_stride, const real *in, int64_t in_stride, int64_t N, int64_t D) {
    bool fours = in_fours(D, out, in) && strides_in_fours(out_stride, in_stride);
    flat_launch(row_copying<true>{out, in, out_stride, in_stride, D}, fours, N * D);
}

struct adding {
    float *out;
    const float *a, *b;
    template <int W> __device__ void at(int64_t i) const {
        floats<W> x = load<W>(a + i), y = load<W>(b + i);
        for (int k = 0; k < W; ++k) x.x[k] += y.x[k];
        store<W>(out + i, x);
    }
};

static void add(real *out, const real *a, const real *b, int64_t n) {
    flat_launch(adding{out, a, b}, in_fours(0, out, a, b), n);
}

struct adding_scaled {
    float *out;
    const float *in;
    float scale;
    template <int W> __device__ void at(int64_t i) const {
        floats<W> x = load<W>(out + i), y = load<W>(in + i);
        for (int k = 0; k < W; ++k) x.x[k] += scale * y.x[k];
        store<W>(out + i, x);
    }
};

static void add_scaled(real *out, const real *in, double scale, int64_t n) {
    flat_launch(adding_scaled{out, in, (float)scale}, in_fours(0, out, in), n);
}

struct bending {
    float *out;
    const float *in;
    template <int W> __device__ void at(int64_t i) const {
        floats<W> x = load<W>(in + i);
        for (int k = 0; k < W; ++k) x.x[k] = tanhf(x.x[k]);
        store<W>(out + i, x);
    }
};

static void tanh_forward(real *out, const real *in, int64_t n) {
    flat_launch(bending{out, in}, in_fours(0, out, in), n);
}

struct bending_back {
    float *din;
    const float *dout, *out;
    template <int W> __device__ void at(int64_t i) const {
        floats<W> x = load<W>(dout + i), y = load<W>(out + i);
        for (int k = 0; k < W; ++k) x.x[k] *= 1 - y.x[k] * y.x[k];
        store<W>(din + i, x);
    }
};

static void tanh_backward(real *din, const real *dout, const real *out, int64_t n) {
    flat_launch(bending_back{din, dout, out}, in_fours(0, din, dout, out), n);
}

struct taking_column {
    int32_t *out;
    const int32_t *in;
    int64_t K;
    template <int W> __device__ void at(int64_t i) const { out[i] = in[i * K]; }
};

static void take_column(int32_t *out, const int32_t *in, int64_t N, int64_t K) {
    each_launch(taking_column{out, in, K}, N);
}

struct taking_remainder {
    int32_t *out;
    const int32_t *in;
    int64_t divisor;
    template <int W> __device__ void at(int64_t i) const { out[i] = (int32_t)(in[i] % divisor); }
};

static void modulo(int32_t *out, const int32_t *in, int64_t divisor, int64_t N) {
    each_launch(taking_remainder{out, in, divisor}, N);
}

struct numbering {
    int64_t *out;
    const int64_t *index;
    int64_t divisor, first;
    template <int W> __device__ void at(int64_t i) const { out[i] = first + (index ? index[i] : i) / divisor; }
};

static void row_numbers(int64_t *out, const int64_t *index, int64_t divisor, int64_t first, int64_t N) {
    each_launch(numbering{out, index, divisor, first}, N);
}

/* A thread has the four columns of one draw; where rows cannot be read four at once, one after the other. */
template <int V> struct dropping {
    float *out;
    const float *residual, *in;
    struct kept kept;
    int64_t row_first, D, quads;
    template <int W> __device__ void at(int64_t i) const {
        int64_t row = i / quads, quad = i - row * quads, first = row * D + 4 * quad;
        int64_t end = 4 * quad + 4 < D ? first + 4 : (row + 1) * D;
        float factor[4] = {1, 1, 1, 1};
        if (kept.drops) kept_factors(factor, kept, (uint32_t)(row_first + row), (uint32_t)quad);
        for (int k = 0; k < 4; k += V)
            if (first + k < end) {
                floats<V> x = load<V>(in + first + k), on_top = {};
                if (residual) on_top = load<V>(residual + first + k);
                for (int j = 0; j < V; ++j) x.x[j] = on_top.x[j] + x.x[j] * factor[k + j];
                store<V>(out + first + k, x);
            }
    }
};

static void dropout(real *out, const real *residual, const real *in, struct dropout dropout, int64_t row_first,
                    int64_t N, int64_t D) {
    struct kept kept = kept_of(dropout);
    int64_t quads = (D + 3) / 4;
    if (in_fours(D, out, residual, in))
        each_launch(dropping<4>{out, residual, in, kept, row_first, D, quads}, N * quads);
    else
        each_launch(dropping<1>{out, residual, in, kept, row_first, D, quads}, N * quads);
}

void cuda_elementwise_ops(struct ops *table) {
    table->fill = fill;
    table->copy = copy;
    table->copy_rows = copy_rows;
    table->add_rows = add_rows;
    table->add = add;
    table->add_scaled = add_scaled;
    table->tanh_forward = tanh_forward;
    table->tanh_backward = tanh_backward;
    table->take_column = take_column;
    table->modulo = modulo;
    table->row_numbers = row_numbers;
    table->dropout = dropout;
    cuda_reduce_ops(table);
    cuda_relu_ops(table);
}
