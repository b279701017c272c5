#include <malloc.h>
#include <omp.h>

#include "kernels/cpu/cpu.h"

const struct ops *ops;

void ops_init_cpu(int threads, enum precision precision) {
    static struct ops table = {.name = "cpu"};
    /* The libraries take and give back scratch in every product: keep it, or each call pays for fresh pages. */
    mallopt(M_MMAP_THRESHOLD, 32 << 20); /* the most that glibc takes */
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    omp_set_dynamic(0);
    omp_set_num_threads(threads);
    cpu_gemm_start(precision);
    cpu_gemm_ops(&table);
    cpu_linear_ops(&table);
    cpu_elementwise_ops(&table);
    cpu_embedding_ops(&table);
    cpu_norm_ops(&table);
    cpu_attention_ops(&table);
    cpu_softmax_ops(&table);
    cpu_route_ops(&table);
    cpu_quantize_ops(&table);
    cpu_optimizer_ops(&table);
    ops = &table;
}
