/* Starts the operations of this rank: on how many threads, on which device, in which precision, and how rows travel. */
#ifndef VQMOE_START_H
#define VQMOE_START_H

#include "comm/comm.h"
#include "config/config.h"

/* Before any model is made. STATUS_CONFIG: a device that is not there, fewer GPUs than ranks, what a combination of
 * keys cannot do; STATUS_INTERNAL: a GPU or NCCL cannot be used. Collective over the world. */
enum status start_operations(const struct config *config, struct comm *world);
/* "device: cpu (no NVIDIA driver), oneDNN 2.6.3, fp32": what was chosen, and why. */
const char *start_description(void);

#endif
