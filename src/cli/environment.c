#include "cli/environment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "train/start.h"

extern char **environ;

enum { HOST = 64 };

/* Of all ranks: [size][HOST]; the caller frees it. */
static char *gather_hosts(struct comm *world) {
    char mine[HOST] = "";
    gethostname(mine, sizeof mine - 1);
    char *all = calloc((size_t)world->size, HOST);
    if (!all) FATAL("out of memory");
    comm_allgather(world, (int64_t *)all, (const int64_t *)mine, HOST / sizeof(int64_t));
    return all;
}

static void print_hosts(FILE *file, const char *hosts, int ranks) {
    fprintf(file, "ranks:");
    for (int first = 0, r = 1; r <= ranks; ++r) {
        if (r < ranks && !strcmp(hosts + r * HOST, hosts + first * HOST)) continue;
        fprintf(file, " %s %d", hosts + first * HOST, first);
        if (r - 1 > first) fprintf(file, "-%d", r - 1);
        first = r;
    }
    fputc('\n', file);
}

/* The folder may be for everyone to read. */
static bool is_secret(const char *variable) {
    static const char *const words[] = {"TOKEN", "KEY", "SECRET", "PASS", "JWT", "CREDENTIAL"};
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(variable, "="), variable);
    for (size_t i = 0; i < sizeof words / sizeof *words; ++i)
        if (strstr(name, words[i])) return true;
    return false;
}

static void print_variables(FILE *file) {
    static const char *const prefixes[] = {"OMPI_MCA_", "PMIX_MCA_", "SLURM_", "NCCL_",
                                           "CUDA_",     "OMP_",      "UCX_",   "VQMOE_"};
    for (char **variable = environ; *variable; ++variable)
        for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; ++i)
            if (!strncmp(*variable, prefixes[i], strlen(prefixes[i])) && !is_secret(*variable))
                fprintf(file, "  %s\n", *variable);
}

static void print_all(FILE *file, const struct arguments *arguments, const char *hosts, int ranks) {
    time_t now = time(NULL);
    char folder[1024] = "?";
    if (!getcwd(folder, sizeof folder)) folder[0] = '?';
    fprintf(file, "started %.24s in %s\n", ctime(&now), folder);
    fprintf(file, "command: vqmoe train");
    for (int i = 0; i < arguments->n_files; ++i) fprintf(file, " %s", arguments->files[i]);
    if (arguments->resume) fprintf(file, " --resume %s", arguments->resume);
    if (arguments->init_from) fprintf(file, " --init-from %s", arguments->init_from);
    for (int i = 0; i < arguments->n_overrides; ++i) fprintf(file, "%s %s", i ? "" : " --set", arguments->overrides[i]);
    fputc('\n', file);
    print_hosts(file, hosts, ranks);
    fprintf(file, "%s\n", start_description());
    cli_print_version(file);
    print_variables(file);
    fputc('\n', file);
}

static enum status append(const struct config *config, const struct arguments *arguments, const char *hosts,
                          int ranks) {
    char path[1024];
    snprintf(path, sizeof path, "%s/environment.txt", config->run.dir);
    FILE *file = fopen(path, "a");
    if (!file) return status_fail(STATUS_WRITE, "%s: cannot write: %s", path, strerror(errno));
    print_all(file, arguments, hosts, ranks);
    bool good = !ferror(file);
    good = fclose(file) == 0 && good;
    return good ? STATUS_OK : status_fail(STATUS_WRITE, "%s: cannot write: %s", path, strerror(errno));
}

enum status environment_write(const struct config *config, const struct arguments *arguments, struct comm *world) {
    char *hosts = gather_hosts(world);
    enum status status = world->rank ? STATUS_OK : append(config, arguments, hosts, world->size);
    free(hosts);
    return comm_agree(world, status);
}
