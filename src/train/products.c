#include "train/products.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "kernels/ops.h"

static bool same(const struct product *a, const struct product *b) {
    return a->N == b->N && a->O == b->O && a->I == b->I && a->lda == b->lda && a->ldb == b->ldb && a->ldc == b->ldc &&
           a->transpose_a == b->transpose_a && a->transpose_b == b->transpose_b && a->parallel == b->parallel &&
           a->adds == b->adds && a->exact == b->exact;
}

void products_add(struct products *p, const struct product *product) {
    if (product->N * product->O * product->I * product->calls == 0) return;
    for (int64_t i = 0; i < p->count; ++i)
        if (same(&p->list[i], product)) {
            p->list[i].calls += product->calls;
            return;
        }
    if (p->count == p->room) {
        p->room = p->room ? 2 * p->room : 256;
        p->list = realloc(p->list, (size_t)p->room * sizeof *p->list);
        if (!p->list) FATAL("out of memory");
    }
    p->list[p->count++] = *product;
}

/* Exact products are a layer's: with another factor transposed they take as long. */
static void multiply(const struct product *p, const real *a, const real *b, real *c) {
    if (p->exact)
        ops->linear_exact_forward(c, a, b, NULL, p->N, p->O, p->I);
    else
        ops->gemm(p->transpose_a, p->transpose_b, p->N, p->O, p->I, 1, a, p->lda, b, p->ldb, p->adds ? 1 : 0, c,
                  p->ldc);
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
            for (int i = 0; i < calls; ++i) multiply(p, own, own + a, own + a + b);
        }
        double seconds = (clock_seconds() - from) / calls / threads;
        if (seconds < p->seconds) p->seconds = seconds;
    }
    free(data);
}

void products_time(struct products *products) {
    for (int64_t i = 0; i < products->count; ++i) time_one(&products->list[i]);
}

double product_operations(const struct product *p) {
    return 2.0 * (double)p->N * (double)p->O * (double)p->I * (double)p->calls;
}

double products_operations(const struct products *products) {
    double sum = 0;
    for (int64_t i = 0; i < products->count; ++i) sum += product_operations(&products->list[i]);
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
