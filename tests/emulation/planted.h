/* Small programs for the emulated device, each right and with a bug planted. */
#ifndef VQMOE_EMULATION_PLANTED_H
#define VQMOE_EMULATION_PLANTED_H

/* Runs the case, prints its result as one line; a planted bug may end the process. 1: no such case. */
int planted_run(const char *name);

#endif
