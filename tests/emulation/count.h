/* What kernels load and store, in the flavour of the emulation that counts. Bytes are those of device memory; the model
 * of a cache is that a block moves each sector of 32 bytes that it touches once, loads and stores apart. */
#ifndef VQMOE_EMULATION_COUNT_H
#define VQMOE_EMULATION_COUNT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct emulation_count {
    double launches;
    double operations;     /* of products: two for each multiplication and addition */
    double loaded, stored; /* bytes that threads asked for */
    /* Bytes of the sectors that each block touched, summed over blocks. */
    double block_loaded, block_stored;
    /* Bytes that each launch touched, each once: the least that it can do with. */
    double least_loaded, least_stored;
    /* Bytes of the sectors that more than one block of a launch loaded, of the launch with the most. */
    double shared_loaded;
};

/* A product [N, O] = [N, I] [I, O], `count` of them in one call. */
struct emulation_product {
    int64_t N, O, I, count;
    int factor_bytes, result_bytes; /* of an element */
    int adds;                       /* to what is there */
};

void emulation_count_reset(void);
/* By name, such as "flat<4, filling>"; matrix products of cuBLAS are "gemm", each operand once, C loaded where beta is
 * not 0. */
void emulation_count_each(void (*each)(const char *kernel, const struct emulation_count *count, void *context),
                          void *context);
/* In the order in which they ran. */
void emulation_products_each(void (*each)(const struct emulation_product *product, void *context), void *context);

#ifdef __cplusplus
}
#endif

#endif
