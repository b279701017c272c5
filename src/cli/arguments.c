#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"

enum {
    KEY_RESUME = 1000,
    KEY_OUT,
    KEY_SPLIT,
    KEY_PROMPT,
    KEY_TOKENS,
    KEY_TEMPERATURE,
    KEY_TOP_K,
    KEY_TOP_P,
    KEY_SEED,
    KEY_RECORD,
    KEY_REPLAY,
    KEY_STEPS,
    KEY_NOISE,
    KEY_COMPARE,
    KEY_INIT_FROM,
    KEY_ROUTING,
    KEY_CHECKPOINT,
    KEY_FOLDER,
    KEY_VERIFY,
    KEY_PRINT_CONFIG
};

static const struct {
    int set;
    struct argp_option option;
} options[] = {
    {0, {"set", 's', "KEY=VALUE", 0, "Override a configuration key; more KEY=VALUE may follow", 0}},
    {TAKES_RESUME,
     {"resume", KEY_RESUME, "CHECKPOINT", 0,
      "Go on from this checkpoint, the newest whole one of a run folder, or (train) with `auto` of run.dir, if there is one",
      0}},
    {TAKES_INIT, {"init-from", KEY_INIT_FROM, "CHECKPOINT", 0, "Begin with its weights, where they fit", 0}},
    {TAKES_PRINT_CONFIG,
     {"print-config", KEY_PRINT_CONFIG, NULL, 0, "Print the complete configuration as YAML instead of training", 0}},
    {TAKES_OUT, {"out", KEY_OUT, "FILE", 0, "Where to write (default: step.h5)", 0}},
    {TAKES_SPLIT, {"split", KEY_SPLIT, "NAME", 0, "train, valid or test (default)", 0}},
    {TAKES_GENERATION, {"prompt", KEY_PROMPT, "TEXT", 0, "Text to continue; -: what comes on standard input", 0}},
    {TAKES_GENERATION, {"tokens", KEY_TOKENS, "N", 0, "Symbols to generate (default: 200)", 0}},
    {TAKES_GENERATION, {"temperature", KEY_TEMPERATURE, "T", 0, "0: always the most probable symbol (default: 1)", 0}},
    {TAKES_GENERATION, {"top-k", KEY_TOP_K, "K", 0, "Only of the K most probable symbols (default: 0, all)", 0}},
    {TAKES_GENERATION,
     {"top-p", KEY_TOP_P, "P", 0, "Only of the fewest that have probability P together (default: 1, all)", 0}},
    {TAKES_NOISE,
     {"noise", KEY_NOISE, "RATE", 0, "Swap, drop or insert a symbol at this fraction of the places (default: 0)", 0}},
    {TAKES_GENERATION | TAKES_NOISE, {"seed", KEY_SEED, "N", 0, "Of the draws (default: 1)", 0}},
    {TAKES_ROUTES, {"record", KEY_RECORD, "FILE", 0, "Write the choices of every step", 0}},
    {TAKES_ROUTES, {"replay", KEY_REPLAY, "FILE", 0, "Take the choices of a recorded run; prints the flips", 0}},
    {TAKES_ROUTING, {"routing", KEY_ROUTING, NULL, 0, "How its routing is, or in a run folder how it came to be", 0}},
    {TAKES_VERIFY, {"verify", KEY_VERIFY, NULL, 0, "Every byte of it against its checksums", 0}},
    {TAKES_STEPS, {"steps", KEY_STEPS, "N", 0, "Steps to time (default: 3)", 0}},
    {TAKES_STEPS,
     {"checkpoint", KEY_CHECKPOINT, "FOLDER", 0, "Time writing and reading a checkpoint there instead", 0}},
    {TAKES_FOLDER, {"dir", KEY_FOLDER, "FOLDER", 0, "Where runs are to be written (default: here)", 0}},
    {TAKES_COMPARE,
     {"compare", KEY_COMPARE, "RUN_A", 0,
      "For CHECKPOINT a run's folder too: where the two first chose differently, and their other keys", 0}},
};
enum { OPTIONS = sizeof options / sizeof *options };

static int64_t integer_of(struct argp_state *state, const char *text, int64_t least, int64_t most) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || *end || end == text || value < least || value > most)
        argp_error(state, "expected an integer from %lld to %lld, found '%s'", (long long)least, (long long)most, text);
    return value;
}

static void append(const char ***list, int *count, const char *text) {
    *list = realloc(*list, (size_t)(*count + 1) * sizeof **list);
    if (!*list) FATAL("out of memory");
    (*list)[(*count)++] = text;
}

static error_t parse_one(int key, char *text, struct argp_state *state) {
    struct arguments *a = state->input;
    char *end;
    switch (key) {
    case 's': append(&a->overrides, &a->n_overrides, text); break;
    case KEY_RESUME: a->resume = text; break;
    case KEY_INIT_FROM: a->init_from = text; break;
    case KEY_OUT: a->out = text; break;
    case KEY_SPLIT: a->split = text; break;
    case KEY_PROMPT: a->prompt = text; break;
    case KEY_TOKENS: a->tokens = integer_of(state, text, 1, 1 << 30); break;
    case KEY_TOP_K: a->top_k = integer_of(state, text, 0, 1 << 30); break;
    case KEY_SEED: a->seed = integer_of(state, text, 0, INT64_MAX); break;
    case KEY_STEPS: a->steps = integer_of(state, text, 1, 1 << 30); break;
    case KEY_RECORD: a->record = text; break;
    case KEY_REPLAY: a->replay = text; break;
    case KEY_ROUTING: a->routing = true; break;
    case KEY_VERIFY: a->verify = true; break;
    case KEY_PRINT_CONFIG: a->print_config = true; break;
    case KEY_TEMPERATURE:
        a->temperature = strtod(text, &end);
        if (*end || end == text || !(a->temperature >= 0))
            argp_error(state, "expected a temperature of at least 0, found '%s'", text);
        break;
    case KEY_TOP_P:
        a->top_p = strtod(text, &end);
        if (*end || end == text || !(a->top_p > 0 && a->top_p <= 1))
            argp_error(state, "expected a probability above 0 and up to 1, found '%s'", text);
        break;
    case KEY_FOLDER: a->folder = text; break;
    case KEY_CHECKPOINT: a->checkpoint = text; break;
    case KEY_COMPARE: a->compare = text; break;
    case KEY_NOISE:
        a->noise = strtod(text, &end);
        if (*end || end == text || !(a->noise >= 0 && a->noise < 1))
            argp_error(state, "expected a rate from 0 to below 1, found '%s'", text);
        break;
    case ARGP_KEY_ARG: /* key=value after --set, or a file */
        if (a->n_overrides && strchr(text, '='))
            append(&a->overrides, &a->n_overrides, text);
        else
            append(&a->files, &a->n_files, text);
        break;
    case ARGP_KEY_NO_ARGS: argp_error(state, "no file given"); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* Of a command without files. */
static error_t parse_alone(int key, char *text, struct argp_state *state) {
    if (key == ARGP_KEY_NO_ARGS) return 0;
    if (key == ARGP_KEY_ARG) argp_error(state, "expected no file, found '%s'", text);
    return parse_one(key, text, state);
}

static int rank_hint(void) {
    const char *names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"};
    for (int i = 0; i < 3; ++i)
        if (getenv(names[i])) return atoi(getenv(names[i]));
    return 0;
}

static void print_commands(FILE *out) {
    fputs(
        "Usage: vqmoe COMMAND [OPTION...] FILE...\n\nTrains Vector-Quantized Mixture-of-Experts language models over MPI ranks: mpirun -n 2 vqmoe "
        "train CONFIG\n\n",
        out);
    for (const struct command *c = cli_commands; c->name; ++c) fprintf(out, "  %-14s%s\n", c->name, c->about);
    fputs(
        "\n  vqmoe COMMAND --help    options of a command\n  vqmoe --help-keys       all configuration keys\n"
        "  vqmoe --version         version, commit, libraries\n\nExit codes: 0 done, 1 internal, 2 usage or configuration, 3 data, "
        "4 checkpoint, 5 cannot write,\n6 loss not finite, 7 a rank lost or too late, 85 saved as asked and not done: start again with --resume auto.\nVQMOE_PROGRESS=1: a progress line under mpirun too.\n",
        out);
}

/* Words of the command's name that argv begins with; 0 where it does not. */
static int matches(const struct command *command, int argc, char **argv) {
    char two[64] = "";
    if (argc > 1 && !strcmp(argv[1], command->name)) return 1;
    if (argc > 2) snprintf(two, sizeof two, "%s %s", argv[1], argv[2]);
    return !strcmp(two, command->name) ? 2 : 0;
}

static enum status print_config(const struct arguments *a) {
    struct config config;
    enum status status = config_load(&config, a->files, a->n_files, a->overrides, a->n_overrides);
    if (status)
        log_error(status_message());
    else
        config_print_yaml(&config, stdout);
    return status;
}

static void parse_options(const struct command *command, int argc, char **argv, struct arguments *arguments) {
    struct argp_option taken[OPTIONS + 1] = {0};
    int count = 0;
    for (int i = 0; i < OPTIONS; ++i)
        if (options[i].set ? command->options & options[i].set : *command->files) taken[count++] = options[i].option;
    static char name[80]; /* argv keeps it */
    char doc[512];
    snprintf(doc, sizeof doc, "%s%s", command->about,
             command->options & TAKES_KEYS ? "\vAll configuration keys: vqmoe --help-keys" : "");
    snprintf(name, sizeof name, "vqmoe %s", command->name);
    argv[0] = name;
    argp_err_exit_status = STATUS_CONFIG;
    struct argp argp = {
        .options = taken, .parser = *command->files ? parse_one : parse_alone, .args_doc = command->files, .doc = doc};
    argp_parse(&argp, argc, argv, 0, NULL, arguments);
    if (arguments->print_config) exit(print_config(arguments));
    if (arguments->n_files < 2 || strstr(command->files, "...")) return;
    fprintf(stderr, "%s: expected one file, found also '%s'\n", name, arguments->files[1]);
    exit(STATUS_CONFIG);
}

static const struct command *parse(int argc, char **argv, struct arguments *arguments) {
    *arguments = (struct arguments){.split = "test",
                                    .prompt = "",
                                    .out = "step.h5",
                                    .folder = ".",
                                    .tokens = 200,
                                    .seed = 1,
                                    .steps = 3,
                                    .temperature = 1,
                                    .top_p = 1};
    for (const struct command *command = cli_commands; command->name; ++command) {
        int words = matches(command, argc, argv);
        if (!words) continue;
        parse_options(command, argc - words, argv + words, arguments);
        return command;
    }
    const char *last = argc > 1 ? argv[argc - 1] : ""; /* `vqmoe --help`, but also `vqmoe debug --help` */
    bool known = true;
    if (argc < 2 || !strcmp(last, "--help") || !strcmp(last, "-?"))
        print_commands(argc < 2 ? stderr : stdout);
    else if (!strcmp(argv[1], "--version"))
        cli_print_version(stdout);
    else if (!strcmp(argv[1], "--help-keys"))
        config_print_help(stdout);
    else
        known = false;
    if (!known) fprintf(stderr, "vqmoe: expected a command, found '%s': see vqmoe --help\n", argv[1]);
    exit(argc < 2 || !known ? STATUS_CONFIG : STATUS_OK);
}

/* Of the ranks of a job only the first speaks while arguments are parsed: argp prints and exits by itself. */
const struct command *cli_parse(int argc, char **argv, struct arguments *arguments) {
    if (rank_hint() <= 0) return parse(argc, argv, arguments);
    int nowhere = open("/dev/null", O_WRONLY), out = dup(STDOUT_FILENO), error = dup(STDERR_FILENO);
    dup2(nowhere, STDOUT_FILENO);
    dup2(nowhere, STDERR_FILENO);
    const struct command *command = parse(argc, argv, arguments);
    dup2(out, STDOUT_FILENO);
    dup2(error, STDERR_FILENO);
    close(nowhere);
    close(out);
    close(error);
    return command;
}

void cli_arguments_free(struct arguments *arguments) {
    free(arguments->files);
    free(arguments->overrides);
    *arguments = (struct arguments){0};
}
