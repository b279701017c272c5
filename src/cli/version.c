#include <stdio.h>

#include "base/h5file.h"
#include "base/real.h"
#include "cli/cli.h"
#include "kernels/ops.h"

void cli_print_version(void) {
    printf("vqmoe " VQMOE_VERSION " (commit " VQMOE_COMMIT "), " REAL_NAME "\n");
    printf("matrix products: %s\n", ops_library());
    printf("MPI: %s\n", comm_library_version());
    printf("HDF5: %s\n", h5file_library_version());
    printf("configuration: %s\n", config_libraries());
}
