#include <stdio.h>

#include "base/real.h"
#include "cli/cli.h"
#include "kernels/ops.h"
#include "store/h5.h"

void cli_print_version(void) {
    printf("vqmoe " VQMOE_VERSION " (commit " VQMOE_COMMIT "), " REAL_NAME "\n");
    printf("matrix products: %s\n", ops_library());
    printf("MPI: %s\n", comm_library_version());
    printf("HDF5: %s\n", h5_library_version());
    printf("configuration: %s\n", config_libraries());
}
