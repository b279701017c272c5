/* Rows by expert or by code. */
#ifndef VQMOE_SORT_H
#define VQMOE_SORT_H

#include <stddef.h>
#include <stdint.h>

/* Stable sort of N < 2^31 keys below E on QUEUE_COMPUTE: order[i] = index of the key at place i, place[index] = i; key
 * e has places begin[e] .. begin[e + 1], counts[e] of them. A negative key has place -1 and is not in the order. order
 * [N]; place [N], counts [E] and begin [E + 1] may be NULL. scratch: device memory of cuda_sort_bytes(N), 4-byte
 * aligned. */
void cuda_sort(int64_t *order, int64_t *place, int64_t *counts, int64_t *begin, const int32_t *keys, void *scratch,
               int64_t N, int64_t E);
size_t cuda_sort_bytes(int64_t N);

#endif
