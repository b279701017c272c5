#include "config/keys.h"

#include <string.h>

#define MEMBER(member) \
    .name = #member, .offset = offsetof(struct config, member), .size = sizeof(((struct config *)0)->member)
#define TEXT(member, default, about) MEMBER(member), .type = KEY_TEXT, .value = default, .help = about
#define ENUM(member, default, list, about) \
    MEMBER(member), .type = KEY_ENUM, .value = default, .names = list, .help = about
#define BOOL(member, default, about) MEMBER(member), .type = KEY_BOOL, .value = default, .help = about
#define INT(member, default, least, most, about) \
    MEMBER(member), .type = KEY_INT, .value = default, .min = least, .max = most, .help = about
#define REAL(member, default, least, most, about) \
    MEMBER(member), .type = KEY_REAL, .value = default, .min = least, .max = most, .help = about
#define FRACTION(member, default, about) MEMBER(member), .type = KEY_FRACTION, .value = default, .help = about
#define WORD(text, number) .word = text, .word_value = number

/* Help, defaults, ranges and errors all come from here; --help, YAML and JSON list the keys in this order. */
const struct config_key config_keys[] = {
    {ENUM(preset, "paper", "paper|published", "the paper's formulas, or the authors' runs")},

    {TEXT(run.dir, "", "output folder; empty: runs/NAME_OF_FIRST_YAML")},
    {INT(run.seed, "1", 0, 9007199254740991, "of every random number")},

    {ENUM(data.kind, "text", "enwik8|text8|text|words|lm1b|csv|tsv|trees|imdb", "format; docs/data.md")},
    {TEXT(data.prepared, "", "folder of `data prepare`, or the files below")},
    {TEXT(data.train, "", "training data; enwik8, text8: the whole file")},
    {TEXT(data.valid, "", "validation data")},
    {TEXT(data.test, "", "test data; may be absent")},
    {ENUM(data.newlines, "keep", "drop|keep", "line feeds in the text"), .published = "drop"},
    {TEXT(data.vocabulary, "", "words, lm1b: a word a line; or from data.train")},
    {INT(data.min_count, "auto", 1, 1e9, "of a word to be in it; auto: 1, lm1b 3"), WORD("auto", 0)},
    {TEXT(data.text, "", "csv, tsv: column; empty: the first")},
    {TEXT(data.label, "", "csv, tsv: column; empty: the last")},
    {ENUM(data.too_long, "truncate", "truncate|refuse", "texts beyond classifier.length")},

    {ENUM(model.kind, "lm", "lm|classifier", "language model, or a class for a text")},
    {ENUM(model.attention, "relative", "relative|absolute", "Transformer-XL, or Transformer")},
    {ENUM(model.norm, "post", "post|pre", "place of the layer norms")},
    {INT(model.layers, "4", 1, 255, "blocks")},
    {INT(model.d_model, "256", 2, 65536, "width; even")},
    {INT(model.heads, "8", 1, 1024, "attention heads")},
    {INT(model.d_head, "64", 1, 1024, "width of a head")},
    {INT(model.d_inner, "512", 1, 1048576, "hidden width of an expert")},
    {INT(model.segment, "512", 1, 65536, "symbols of a row in a step")},
    {INT(model.memory, "512", 0, 65536, "positions before them attended to; absolute: 0")},
    {FRACTION(model.dropout, "0.1", "everywhere but attention")},
    {FRACTION(model.attention_dropout, "0", "of attention probabilities")},
    {ENUM(model.softmax, "full", "full|adaptive", "over all symbols, or by frequency")},
    {TEXT(model.cutoffs, "20000,40000,200000", "adaptive: first symbol of each tail")},
    {BOOL(model.tied, "true", "one matrix for embedding and softmax")},
    {REAL(model.logits_mib, "64", 0.001, 1e6, "MiB of logits at a time; docs/performance.md")},

    {ENUM(classifier.head, "mlp", "mlp|linear", "what follows the last position")},
    {INT(classifier.length, "512", 2, 65536, "symbols of a text, the final <S> included")},
    {ENUM(classifier.weights, "none", "none|balanced", "of classes in the loss")},
    {INT(classifier.patience, "0", 0, 1e6, "validations that may be no better; 0: any")},

    {ENUM(moe.mode, "joint", "joint|discrete|continuous", "both paths, codes only, router only")},
    {INT(moe.experts, "16", 1, 65535, "of each layer")},
    {BOOL(moe.share_norm, "true", "one norm for the block and the discrete path")},
    {BOOL(moe.discrete_norm, "true", "norms in the discrete path")},

    {TEXT(router.kind, "stablemoe", "docs/method.md, section 3, lists them")},
    {INT(router.top_k, "1", 1, 65535, "experts of a token; at most moe.experts")},
    {ENUM(router.normalize, "all", "all|topk", "softmax over all or top k"), .published = "topk"},
    {REAL(router.balance, "0.01", 0, 1000, "weight of the balance loss"), .published = "0"},
    {ENUM(router.balance_scope, "global", "global|rank", "tokens that are balanced together")},
    {REAL(router.capacity, "none", 0, 65535, "room of an expert over the mean; the rest drops"), WORD("none", 0)},
    {BOOL(router.two_stage, "false", "stablemoe: distil, then freeze a light router")},
    {INT(router.switch_step, "auto", 0, 1e9, "stablemoe, cluster: second stage; auto: a tenth"), WORD("auto", 0)},
    {INT(router.k_min, "auto", 0, 65535, "smoe_dropout: first k; auto: half the experts"), WORD("auto", 0)},
    {INT(router.k_max, "auto", 0, 65535, "smoe_dropout: last k; auto: all experts"), WORD("auto", 0)},
    {INT(router.clusters, "auto", 0, 65535, "cluster: centroids; auto: moe.experts"), WORD("auto", 0)},
    {INT(router.samples, "4096", 1, 1e7, "cluster: tokens that k-means sees")},
    {REAL(router.tau, "0.05", 1e-6, 1e6, "cluster: temperature of its scores")},
    {INT(router.dense_width, "1", 1, 65535, "dense: multiples of model.d_inner")},

    {TEXT(quantizer.kind, "vq", "docs/method.md, section 2, lists them")},
    {INT(quantizer.codes, "auto", 0, 65535, "of each layer; auto: moe.experts"), WORD("auto", 0)},
    {INT(quantizer.width, "auto", 0, 65536, "factorized: of a code; auto: moe.experts"), WORD("auto", 0)},
    {FRACTION(quantizer.decay, "0.99", "ema, online_clustered: of the moving averages")},
    {ENUM(quantizer.init, "normal", "normal|uniform", "initial codes")},
    {ENUM(quantizer.straight_through, "full", "full|blend", "input of the discrete path"), .published = "blend"},
    {REAL(quantizer.contribution, "0.05", 0, 1, "share of the code in blend")},
    {REAL(quantizer.alpha, "0.08", 0, 1000, "weight of the VQ loss")},
    {REAL(quantizer.beta, "0.25", 0, 1000, "weight of the commitment in it")},

    {INT(parallel.expert, "auto", 1, 65535, "ranks that share the experts; auto: all"), WORD("auto", 0)},
    {INT(parallel.threads, "auto", 1, 1024, "per rank; auto: cores of the node / its ranks"), WORD("auto", 0)},
    {ENUM(parallel.comm, "auto", "auto|self|mpi|nccl", "auto: nccl between GPUs, or mpi")},
    {INT(parallel.small_message, "16384", 0, 1e9, "bytes; GPUs: smaller ones go joined")},
    {BOOL(parallel.share_gpus, "false", "more ranks than GPUs on a node; needs comm mpi")},
    {BOOL(parallel.vocabulary, "false", "embedding and softmax are cut over the ranks")},
    {REAL(parallel.timeout_s, "600", 1, 1e6, "longest wait for the other ranks")},
    {ENUM(device, "auto", "auto|cpu|cuda", "where kernels run; auto: a GPU if there is one")},
    {ENUM(precision, "fp32", "fp32|bf16", "factors of products; sums and all else are fp32")},

    {REAL(optim.lr, "0.00035", 0, 10, "Adam's highest learning rate")},
    {REAL(optim.clip, "0.25", 1e-6, 1e6, "largest norm of the gradient")},
    {INT(optim.warmup, "0", 0, 1e9, "steps of linear warm-up")},
    {INT(optim.decay_steps, "auto", 1, 1e9, "end of the cosine; auto: train.steps"), WORD("auto", 0)},

    {INT(train.batch, "44", 1, 1e6, "rows of a step, all ranks together")},
    {INT(train.steps, "100000", 0, 1e9, "updates")},
    {INT(train.epochs, "0", 0, 1e6, "classifier: instead of steps; 0: train.steps")},
    {INT(train.accumulate, "1", 1, 1e6, "parts of a step; at most train.batch")},
    {INT(train.log_every, "100", 1, 1e9, "steps between two lines of metrics")},
    {REAL(train.max_minutes, "0", 0, 1e6, "then saves and exits with 85; 0: no limit")},

    {INT(eval.every, "auto", 1, 1e9, "steps from one validation to the next"), WORD("auto", 0)},
    {INT(eval.batch, "10", 1, 1e6, "rows")},
    {INT(eval.segment, "128", 1, 65536, "symbols of a row at a time")},
    {INT(eval.memory, "auto", 0, 131072, "auto: as far back as in training"), WORD("auto", -1)},

    {INT(checkpoint.every_steps, "4000", 0, 1e9, "steps between two; 0: no such")},
    {REAL(checkpoint.every_minutes, "0", 0, 1e6, "between two, beside every_steps; 0: no such")},
    {INT(checkpoint.keep, "2", 0, 1e6, "newest ones, beside the best; 0: all")},
    {BOOL(checkpoint.async, "true", "written while training goes on")},

    {INT(diagnostics.every, "1000", 0, 1e9, "steps between looks at the routing; 0: never")},
    {INT(diagnostics.tokens, "1024", 1, 1e6, "of the probe set, rounded up to whole rows")},
};
const int config_n_keys = sizeof config_keys / sizeof config_keys[0];
_Static_assert(sizeof config_keys / sizeof config_keys[0] <= CONFIG_MAX_KEYS, "raise CONFIG_MAX_KEYS");

const struct config_key *key_find(const char *name) {
    for (int i = 0; i < config_n_keys; i++)
        if (strcmp(config_keys[i].name, name) == 0) return &config_keys[i];
    return NULL;
}

/* Levenshtein: the fewest insertions, deletions and replacements that make b of a. */
static int edit_distance(const char *a, const char *b) {
    int row[CONFIG_NAME];
    int n = (int)strlen(b);
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 0; a[i]; i++) {
        int diagonal = row[0];
        row[0] = i + 1;
        for (int j = 0; j < n; j++) {
            int best = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            if (row[j + 1] + 1 < best) best = row[j + 1] + 1;
            if (row[j] + 1 < best) best = row[j] + 1;
            row[j + 1] = best;
        }
    }
    return row[n];
}

const struct config_key *key_nearest(const char *name) {
    const struct config_key *nearest = config_keys;
    int least = edit_distance(name, nearest->name);
    for (int i = 1; i < config_n_keys; i++) {
        int distance = edit_distance(name, config_keys[i].name);
        if (distance < least) {
            least = distance;
            nearest = &config_keys[i];
        }
    }
    return nearest;
}

const char *key_default(const struct config_key *key, enum preset preset) {
    return preset == PRESET_PUBLISHED && key->published ? key->published : key->value;
}
