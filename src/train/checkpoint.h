/* Sharded checkpoints: one global array per parameter and moment, every rank holding some of its rows, so that any
 * number of ranks reads what any number wrote. docs/checkpoint-format.md. */
#ifndef VQMOE_CHECKPOINT_H
#define VQMOE_CHECKPOINT_H

#include "data/feed.h"
#include "store/archive.h"
#include "store/snapshot.h"
#include "train/diagnostics.h"
#include "train/step.h"

enum { CHECKPOINT_VERSION = 2 };

/* What a model's symbols and classes stand for; another's. */
struct legend {
    const struct vocabulary *vocabulary;
    char *const *classes; /* [n_classes] names */
    int64_t n_classes;    /* 0: a language model */
    uint64_t data;        /* of struct text; 0: nothing to hold it against */
};

/* Where a run stands, beside its parameters. */
struct progress {
    int64_t step;           /* updates done */
    int64_t epoch, segment; /* data cursor: the next segment of the streams, sentence or batch of examples */
    struct rest *rest;      /* [train.batch] of shuffled sentences, the task's; NULL: there are none */
    double best_valid;      /* lowest validation loss so far, nats per token; infinity before the first */
    int64_t best_step;      /* when that was; 0 before the first */
    bool validated;         /* the validation of this very step is done */
};

/* Collective over the world: all of these. Errors agree on all ranks. */

/* Everything into a snapshot of the world's ranks, an empty one: this rank's part, off the device. */
void checkpoint_snapshot(struct snapshot *snapshot, struct step *step, struct diagnostics *diagnostics,
                         const struct legend *legend, const struct progress *progress);
/* The same, written: `path` is whole or as it was. STATUS_WRITE. */
enum status checkpoint_write(const char *path, struct step *step, struct diagnostics *diagnostics,
                             const struct legend *legend, const struct progress *progress);
/* Parameters, moments, attention memory, diagnostics and progress, for the very model that `step` holds.
 * STATUS_CHECKPOINT. */
enum status checkpoint_resume(const char *path, struct step *step, struct diagnostics *diagnostics,
                              const struct legend *legend, struct progress *progress);
/* The configuration inside (then overrides), and the vocabulary, the caller's; what eval and generate begin with. step:
 * the number of updates done. */
enum status checkpoint_read_config(const char *path, struct comm *world, struct config *config,
                                   const char *const *overrides, int n_overrides, struct vocabulary *vocabulary,
                                   int64_t *step);
/* Parts of it alone, the caller's: the vocabulary, the configuration, and of a classifier its classes, C names that
 * point into *names. */
enum status checkpoint_read_vocabulary(const char *path, struct comm *world, struct vocabulary *vocabulary);
enum status checkpoint_read_json(const char *path, struct comm *world, char **json);
enum status checkpoint_read_classes(const char *path, struct comm *world, char **names, char ***classes,
                                    int64_t *n_classes);
/* Parameters and state alone. Those that the file has and the model has not (router and mix, where `joint` becomes
 * `discrete`) are left. */
enum status checkpoint_read_parameters(const char *path, struct model *model);
/* For a new run: of parameters and state those that the file has in the same shape (state of one router or quantizer
 * together or not at all), and what is by symbol for the symbols, words or bytes, that both have; the others stay as
 * they are; says what was taken and what was left, here and there. STATUS_CHECKPOINT where nothing fits. */
enum status checkpoint_init_from(const char *path, struct model *model, const struct legend *legend);

/* ---- Parts of it, under any name: used by step files too. Reading is for each rank alone ---- */

/* Of what is trained (or of the state) one array each, from a vector laid out as the parameter table is. What several
 * ranks hold alike they put in turns, each the same number of bytes, as nearly as rows allow. */
void checkpoint_put_arrays(struct snapshot *snapshot, const char *group, const struct model *model, bool state,
                           const real *vector);
void checkpoint_put_array(struct snapshot *snapshot, const char *name, const struct model *model, const struct param *p,
                          const real *at);
void checkpoint_put_memory(struct snapshot *snapshot, const char *group, const struct step *step);
enum status checkpoint_read_arrays(struct archive *archive, const char *group, const struct params *params, bool state,
                                   real *vector);
enum status checkpoint_read_memory(struct archive *archive, const char *group, struct step *step);

#endif
