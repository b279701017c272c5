#include "cli/cli.h"

enum status cli_bench(const struct arguments *arguments, struct comm *world) {
    (void)arguments, (void)world;
    return STATUS_OK;
}
