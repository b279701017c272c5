#include <stdio.h>

#include "base/real.h"
#include "cli/cli.h"
#include "kernels/ops.h"
#include "store/h5.h"

void cli_print_version(FILE *out) {
    fprintf(out, "vqmoe " VQMOE_VERSION " (commit " VQMOE_COMMIT "), " REAL_NAME "\n");
    fprintf(out, "matrix products: %s\n", ops_library());
    fprintf(out, "MPI: %s\n", comm_library_version());
    fprintf(out, "HDF5: %s\n", h5_library_version());
    fprintf(out, "configuration: %s\n", config_libraries());
}

const char *cli_version(void) { return "vqmoe " VQMOE_VERSION; }
