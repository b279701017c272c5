/* The commands of `vqmoe`. Each is a file with one function; arguments.c parses for all of them. */
#ifndef VQMOE_CLI_H
#define VQMOE_CLI_H

#include "comm/comm.h"
#include "config/config.h"
#include "data/text.h"

/* What any command may be given; a command's option list says which. */
struct arguments {
    const char **files; /* [n_files] configurations or one checkpoint, in order */
    int n_files;
    const char **overrides; /* [n_overrides] "key=value" */
    int n_overrides;
    const char *resume;          /* --resume CHECKPOINT */
    const char *init_from;       /* --init-from CHECKPOINT */
    const char *out;             /* --out FILE */
    const char *split;           /* --split NAME */
    const char *prompt;          /* --prompt TEXT; "-": standard input */
    const char *record, *replay; /* --record FILE, --replay FILE */
    int64_t tokens, seed, steps; /* --tokens N, --seed N, --steps N */
    double temperature, top_p;   /* --temperature T, --top-p P */
    int64_t top_k;               /* --top-k K */
    double noise;                /* --noise RATE */
    const char *compare;         /* --compare RUN_A */
    bool routing;                /* --routing */
    const char *checkpoint;      /* --checkpoint FOLDER */
    const char *folder;          /* --dir FOLDER */
    bool verify;                 /* --verify */
    bool print_config;           /* --print-config; cli_parse does it */
};

/* Which options beside --set a command takes. */
enum option_set {
    TAKES_RESUME = 1,
    TAKES_OUT = 2,
    TAKES_SPLIT = 4,
    TAKES_GENERATION = 8,
    TAKES_ROUTES = 16,
    TAKES_STEPS = 32,
    TAKES_INIT = 128,
    TAKES_NOISE = 512,
    TAKES_COMPARE = 1024,
    TAKES_ROUTING = 256,
    TAKES_VERIFY = 2048,
    TAKES_FOLDER = 4096,
    TAKES_PRINT_CONFIG = 8192,
    TAKES_KEYS = 64, /* lists all configuration keys in its --help */
};

struct command {
    const char *name;  /* "debug step" has two words */
    const char *files; /* what stands after the options: "CONFIG..." or "CHECKPOINT", "" for nothing */
    const char *about;
    int options; /* of enum option_set */
    enum status (*run)(const struct arguments *arguments, struct comm *world);
};

extern const struct command cli_commands[]; /* ends with a NULL name */

/* Finds the command in argv and parses what follows. Prints and exits by itself for --help, --version, --print-config
 * and unusable arguments (2). Before MPI starts: of the ranks of a job only the first prints. */
const struct command *cli_parse(int argc, char **argv, struct arguments *arguments);
void cli_arguments_free(struct arguments *arguments);

/* The configuration of a command on configurations, the same on all ranks. Collective over the world. */
enum status cli_configuration(struct config *config, const struct arguments *arguments, struct comm *world);
/* The same, and starts the operations. */
enum status cli_configure(struct config *config, const struct arguments *arguments, struct comm *world);

/* The same of a configuration that is there. */
enum status cli_start(const struct config *config, struct comm *world);
/* A run in its folder, begun or gone on with as --resume and --init-from say. Collective over the world. */
enum status cli_run(const struct config *config, const struct arguments *arguments, struct comm *world);

/* The choices of two runs, folders `a` and `b`, by their route_hashes.tsv, and their config.yaml (docs/metrics.md):
 * first line "same through step N" or "differ at step S, layer L"; a difference is no error. For one rank. STATUS_DATA:
 * a file missing or malformed, no step in common; STATUS_CONFIG: of config.yaml. */
enum status inspect_compare(const char *a, const char *b);

/* "vqmoe 0.1.0 (commit), MPI, HDF5 and the rest", in lines. */
void cli_print_version(FILE *out);
/* "vqmoe 0.1.0" */
const char *cli_version(void);

/* Prints what is in an opened text, with its first lines. */
void data_show(const struct text *text, const struct config *config);

enum status cli_train(const struct arguments *arguments, struct comm *world);
enum status cli_finetune(const struct arguments *arguments, struct comm *world);
enum status cli_predict(const struct arguments *arguments, struct comm *world);
enum status cli_eval(const struct arguments *arguments, struct comm *world);
enum status cli_generate(const struct arguments *arguments, struct comm *world);
enum status cli_inspect(const struct arguments *arguments, struct comm *world);
enum status cli_data_prepare(const struct arguments *arguments, struct comm *world);
enum status cli_data_describe(const struct arguments *arguments, struct comm *world);
enum status cli_bench(const struct arguments *arguments, struct comm *world);
enum status cli_doctor(const struct arguments *arguments, struct comm *world);
enum status cli_debug_step(const struct arguments *arguments, struct comm *world);
enum status cli_debug_routes(const struct arguments *arguments, struct comm *world);

#endif
