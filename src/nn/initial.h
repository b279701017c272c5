/* Initial values of a parameter: element i of the global array is a function of (seed, name, i), so that any slice on
 * any rank agrees. */
#ifndef VQMOE_INITIAL_H
#define VQMOE_INITIAL_H

#include "nn/params.h"

/* out [n] = elements first .. of the global array of `rows` rows. Orthogonal ones are matrices [rows, columns] filled
 * whole: first 0 and n = rows * columns; their rows (or columns, if more rows than columns) are orthonormal times the
 * gain. */
void initial_fill(real *out, const struct initial *initial, uint64_t seed, const char *name, int64_t first, int64_t n,
                  int64_t rows);

#endif
