/* The type of every parameter and activation: float, or double in the build that proves the numbers (-DREAL=double). */
#ifndef VQMOE_REAL_H
#define VQMOE_REAL_H

#ifdef REAL_DOUBLE
typedef double real;
#define REAL_NAME "float64"
#else
typedef float real;
#define REAL_NAME "float32"
#endif

#endif
