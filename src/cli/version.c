#include <stdio.h>

#include "base/h5file.h"
#include "base/real.h"
#include "cli/cli.h"
#include "kernels/ops.h"

void cli_print_version(FILE *out) {
    fprintf(out, "vqmoe " VQMOE_VERSION " (commit " VQMOE_COMMIT "), " REAL_NAME "\n");
    fprintf(out, "matrix products: %s\n", ops_library());
    fprintf(out, "MPI: %s\n", comm_library_version());
    fprintf(out, "HDF5: %s\n", h5file_library_version());
    fprintf(out, "configuration: %s\n", config_libraries());
}
