/* The configuration of a run. One table of keys (keys.c) is the single source of names, defaults, ranges,
 * help and errors; YAML files, `--set key=value` and the JSON text inside checkpoints all go through it. */
#ifndef VQMOE_CONFIG_H
#define VQMOE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

enum { CONFIG_TEXT = 512 }; /* bytes of the longest text value, its end included */

enum preset { PRESET_PAPER, PRESET_PUBLISHED };
enum data_kind { DATA_ENWIK8, DATA_TEXT8, DATA_TEXT, DATA_WORDS, DATA_LM1B, DATA_CSV, DATA_TSV, DATA_TREES, DATA_IMDB };
enum newlines { NEWLINES_DROP, NEWLINES_KEEP };
enum too_long { TOO_LONG_TRUNCATE, TOO_LONG_REFUSE };
enum model_kind { MODEL_LM, MODEL_CLASSIFIER };
enum softmax_kind { SOFTMAX_FULL, SOFTMAX_ADAPTIVE };
enum head_kind { HEAD_MLP, HEAD_LINEAR };
enum class_weights { CLASS_WEIGHTS_NONE, CLASS_WEIGHTS_BALANCED };
enum attention_kind { ATTENTION_RELATIVE, ATTENTION_ABSOLUTE };
enum norm_kind { NORM_POST, NORM_PRE };
enum moe_mode { MOE_JOINT, MOE_DISCRETE, MOE_CONTINUOUS };
enum normalize { NORMALIZE_ALL, NORMALIZE_TOPK };
enum balance_scope { BALANCE_GLOBAL, BALANCE_RANK };
enum code_init { CODE_NORMAL, CODE_UNIFORM };
enum straight_through { STRAIGHT_FULL, STRAIGHT_BLEND };
enum device_kind { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA };
enum precision_kind { PRECISION_KIND_FP32, PRECISION_KIND_BF16 };
enum comm_kind { COMM_AUTO, COMM_SELF, COMM_MPI, COMM_NCCL };

struct config {
    enum preset preset;
    struct {
        char dir[CONFIG_TEXT];
        int64_t seed;
    } run;
    struct {
        enum data_kind kind;
        char prepared[CONFIG_TEXT]; /* folder of `data prepare`; empty: the files themselves (bytes only) */
        char train[CONFIG_TEXT]; /* enwik8, text8: the whole file, split by bytes; else the training file or folder */
        char valid[CONFIG_TEXT], test[CONFIG_TEXT];
        enum newlines newlines;
        char vocabulary[CONFIG_TEXT]; /* words, lm1b: a file, a word a line; empty: built from data.train */
        int64_t min_count;            /* of a word in data.train; 0 (auto): 1, lm1b: 3 */
        char text[CONFIG_TEXT], label[CONFIG_TEXT]; /* columns, by name or number from 1; empty: the first, the last */
        enum too_long too_long;
    } data;
    struct {
        enum model_kind kind;
        enum attention_kind attention;
        enum norm_kind norm;
        int64_t layers, d_model, heads, d_head, d_inner, segment, memory;
        double dropout, attention_dropout;
        enum softmax_kind softmax;
        char cutoffs[CONFIG_TEXT]; /* adaptive: "20000,40000,200000" */
        bool tied;
        double logits_mib; /* room for logits */
    } model;
    struct {
        enum head_kind head;
        int64_t length; /* symbols of a text, its `<S>` included */
        enum class_weights weights;
        int64_t patience; /* validations without a better one; 0: never stops early */
    } classifier;
    struct {
        enum moe_mode mode;
        int64_t experts;
        bool share_norm, discrete_norm;
    } moe;
    struct {
        char kind[32]; /* a name of the list in moe/router.h */
        int64_t top_k;
        enum normalize normalize;
        double balance;
        enum balance_scope balance_scope;
        double capacity; /* 0: none */
        bool two_stage;
        int64_t switch_step;  /* 0 (auto): a tenth of the steps; see config_switch_step */
        int64_t k_min, k_max; /* 0 (auto): half the experts, all */
        int64_t clusters;     /* 0: as many as experts */
        int64_t samples;
        double tau;
        int64_t dense_width;
    } router;
    struct {
        char kind[32];        /* a name of the list in moe/quantizer.h */
        int64_t codes, width; /* 0: as many as experts */
        double decay;
        enum code_init init;
        enum straight_through straight_through;
        double contribution, alpha, beta;
    } quantizer;
    struct {
        int64_t expert;  /* ranks of an expert-parallel group; 0: all */
        int64_t threads; /* per rank; 0 (auto): cores of the node over its ranks */
        enum comm_kind comm;
        int64_t small_message; /* bytes; 0: never join messages */
        bool share_gpus, vocabulary;
        double timeout_s;
    } parallel;
    enum device_kind device;
    enum precision_kind precision;
    struct {
        double lr, clip;
        int64_t warmup, decay_steps; /* decay_steps 0: train.steps */
    } optim;
    struct {
        int64_t batch, steps, accumulate, log_every;
        int64_t epochs;     /* 0: steps tells */
        double max_minutes; /* of this process; 0: none */
    } train;
    struct {
        int64_t every; /* 0 (auto): 4000; a classifier: an epoch */
        int64_t batch, segment;
        int64_t memory; /* -1 (auto): model.memory + model.segment - segment, at least 0; absolute attention: 0 */
    } eval;
    struct {
        int64_t every_steps;  /* 0: never for their number */
        double every_minutes; /* 0: never for the time */
        int64_t keep;         /* newest ones; 0: all */
        bool async;
    } checkpoint;
    struct {
        int64_t every, tokens; /* every 0: never */
    } diagnostics;
};

/* Reads the YAML files in order, then the overrides ("key=value"); later ones win. Defaults depend on
 * `preset`, whichever source sets it. Errors: STATUS_CONFIG, one line with file, line, key, expected and
 * found, or with the nearest key for an unknown one. */
enum status config_load(struct config *config, const char *const *files, int n_files, const char *const *overrides,
                        int n_overrides);

/* From the JSON of a checkpoint (`source` names it in errors), then overrides. A key that this version does
 * not know is an error. */
enum status config_load_json(struct config *config, const char *json, const char *source, const char *const *overrides,
                             int n_overrides);

/* Of fine-tuning: sections model, moe, router and quantizer of a checkpoint's JSON, then what fine-tuning has other
 * defaults for (docs/finetuning.md), then the files, then overrides. */
enum status config_load_finetune(struct config *config, const char *json, const char *source, const char *const *files,
                                 int n_files, const char *const *overrides, int n_overrides);

/* A run goes on as what it was: STATUS_CHECKPOINT where a key that no array's shape shows differs from what `source`
 * was written with. */
enum status config_check_resumed(const struct config *config, const struct config *written, const char *source);

/* N of every schedule: the learning rate's and the routers'. */
int64_t config_total_steps(const struct config *config);
/* The first step of the second stage of a router that has two; at least 1. */
int64_t config_switch_step(const struct config *config);

/* All keys as one flat JSON object, in table order; the caller frees it. */
char *config_to_json(const struct config *config);

/* All keys with their values as YAML, in sections, that config_load reads back to the same configuration. */
void config_print_yaml(const struct config *config, FILE *out);

/* A line for each key whose values differ: "KEY: VALUE in NAME_A, VALUE in NAME_B". */
void config_print_differences(const struct config *a, const struct config *b, const char *name_a, const char *name_b,
                              FILE *out);

/* "libyaml 0.2.5, cJSON 1.7.15" */
const char *config_libraries(void);

/* Every key with type, range, default and one line of help. */
void config_print_help(FILE *out);

#endif
