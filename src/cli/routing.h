/* What inspect --routing prints. */
#ifndef VQMOE_ROUTING_H
#define VQMOE_ROUTING_H

#include "cli/cli.h"

/* Of a run folder its side files as a table; of a checkpoint the measures now. Collective over the world. */
enum status routing_inspect(const struct arguments *arguments, struct comm *world);

#endif
