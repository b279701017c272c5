#include "train/products.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "kernels/ops.h"

static struct products *counting;
static struct ops counted_ops;
static const struct ops *plain_ops;

static bool same(const struct product *a, const struct product *b) {
    return a->N == b->N && a->O == b->O && a->I == b->I && a->lda == b->lda && a->ldb == b->ldb && a->ldc == b->ldc &&
           a->transpose_a == b->transpose_a && a->transpose_b == b->transpose_b && a->parallel == b->parallel &&
           a->adds == b->adds;
}

static void count(const struct product *product) {
    struct products *p = counting;
    for (int64_t i = 0; i < p->count; ++i)
        if (same(&p->list[i], product)) {
            p->list[i].calls++;
            return;
        }
    if (p->count == p->room) {
        p->room = p->room ? 2 * p->room : 256;
        p->list = realloc(p->list, (size_t)p->room * sizeof *p->list);
        if (!p->list) FATAL("out of memory");
    }
    p->list[p->count++] = *product;
}

static void counting_gemm(bool ta, bool tb, int64_t N, int64_t O, int64_t I, double alpha, const real *a, int64_t lda,
                          const real *b, int64_t ldb, double beta, real *c, int64_t ldc) {
    struct product product = {ta, tb, omp_in_parallel(), beta != 0, N, O, I, lda, ldb, ldc, 1, 0};
#pragma omp critical
    count(&product);
    plain_ops->gemm(ta, tb, N, O, I, alpha, a, lda, b, ldb, beta, c, ldc);
}

void products_count_begin(struct products *products) {
    counting = products;
    plain_ops = ops;
    counted_ops = *ops;
    counted_ops.gemm = counting_gemm;
    ops = &counted_ops;
}

void products_count_end(struct products *products) {
    CHECK(counting == products);
    ops = plain_ops;
    counting = NULL;
}

/* Operands as large as the product's own strides reach; each thread has its own where it is called by each. */
static void time_one(struct product *p) {
    int64_t a = (p->transpose_a ? p->I : p->N) * p->lda, b = (p->transpose_b ? p->O : p->I) * p->ldb, c = p->N * p->ldc;
    int threads = p->parallel ? omp_get_max_threads() : 1;
    real *data = malloc((size_t)((a + b + c) * threads + 1) * sizeof *data);
    if (!data) FATAL("out of memory");
    for (int64_t i = 0; i < (a + b + c) * threads; ++i) data[i] = (real)(i % 17) / 17;
    double operations = 2.0 * (double)(p->N * p->O * p->I);
    int calls = 1 + (int)(2e8 / (operations + 1)); /* some milliseconds */
    p->seconds = 1e9;
    for (int round = 0; round < 5; ++round) {
        double from = clock_seconds();
#pragma omp parallel num_threads(threads) if (threads > 1)
        {
            real *own = data + omp_get_thread_num() * (a + b + c);
            for (int i = 0; i < calls; ++i)
                ops->gemm(p->transpose_a, p->transpose_b, p->N, p->O, p->I, 1, own, p->lda, own + a, p->ldb,
                          p->adds ? 1 : 0, own + a + b, p->ldc);
        }
        double seconds = (clock_seconds() - from) / calls / threads;
        if (seconds < p->seconds) p->seconds = seconds;
    }
    free(data);
}

void products_time(struct products *products) {
    for (int64_t i = 0; i < products->count; ++i) time_one(&products->list[i]);
}

double products_operations(const struct products *products) {
    double sum = 0;
    for (int64_t i = 0; i < products->count; ++i) {
        const struct product *p = &products->list[i];
        sum += 2.0 * (double)p->N * (double)p->O * (double)p->I * (double)p->calls;
    }
    return sum;
}

double products_seconds(const struct products *products) {
    double sum = 0;
    for (int64_t i = 0; i < products->count; ++i) sum += products->list[i].seconds * (double)products->list[i].calls;
    return sum;
}

void products_free(struct products *products) {
    free(products->list);
    memset(products, 0, sizeof *products);
}
