/* With what a run was started: run.dir/environment.txt. */
#ifndef VQMOE_ENVIRONMENT_H
#define VQMOE_ENVIRONMENT_H

#include "cli/cli.h"

/* Appends a paragraph: time, hosts and ranks, version and libraries, command, and what is set of the variables that
 * launchers, MPI, NCCL, CUDA and OpenMP read. Collective, errors agree: STATUS_WRITE. */
enum status environment_write(const struct config *config, const struct arguments *arguments, struct comm *world);

#endif
