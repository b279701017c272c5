/* Functions that the host and CUDA kernels share. */
#ifndef VQMOE_BOTH_H
#define VQMOE_BOTH_H

#ifdef __CUDACC__
#define ON_BOTH __host__ __device__
#else
#define ON_BOTH
#endif

#endif
