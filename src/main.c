/* vqmoe: MPI starts and ends here. */
#include <mpi.h>

#include "base/log.h"
#include "base/status.h"
#include "cli/cli.h"

int main(int argc, char **argv) {
    struct arguments arguments;
    const struct command *command = cli_parse(argc, argv, &arguments);
    int provided, size;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    struct comm *world = size > 1 ? comm_mpi_new() : comm_self_new();
    log_init(world->rank);
    enum status status = command->run(&arguments, world);
    if (status && status_message()[0]) log_error(status_message()); /* one rank alone has kept it: comm_agree */
    cli_arguments_free(&arguments);
    comm_free(world);
    MPI_Finalize();
    return status;
}
