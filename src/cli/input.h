/* Standard input of rank 0, which may be a person or a pipe that is silent for hours: the other ranks wait for it in
 * turns, each shorter than what they wait for a lost rank. */
#ifndef VQMOE_INPUT_H
#define VQMOE_INPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "comm/comm.h"

/* Zeroed is empty. On other ranks than 0 it has no bytes. */
struct input {
    char *bytes; /* [size] read and not yet used, and a 0; owned */
    size_t size, room;
    bool end; /* there is no more; on all ranks */
};

/* Waits until there is more, and takes what is there. Collective over the world. */
void input_more(struct input *input, struct comm *world);
/* Drops the first `used` bytes. */
void input_use(struct input *input, size_t used);
void input_free(struct input *input);

#endif
