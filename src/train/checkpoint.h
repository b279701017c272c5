/* Sharded checkpoints in parallel HDF5: one global array per parameter and moment, every rank writing its hyperslabs,
 * so that any number of ranks reads what any number wrote. docs/checkpoint-format.md. */
#ifndef VQMOE_CHECKPOINT_H
#define VQMOE_CHECKPOINT_H

#include "base/h5file.h"
#include "data/text.h"
#include "train/diagnostics.h"
#include "train/step.h"

enum { CHECKPOINT_VERSION = 1 };

/* Where a run stands, beside its parameters. */
struct progress {
    int64_t step;           /* updates done */
    int64_t epoch, segment; /* data cursor: the next segment of the streams */
    double best_valid;      /* lowest validation loss so far, nats per token; infinity before the first */
};

/* Collective over the world: all of these. Errors agree on all ranks. */

/* Written beside `path`, flushed to disk, then renamed: `path` is whole or as it was. STATUS_WRITE. */
enum status checkpoint_write(const char *path, struct step *step, struct diagnostics *diagnostics,
                             const struct text *text, const struct progress *progress);
/* Parameters, moments, attention memory, diagnostics and progress, for the very model that `step` holds.
 * STATUS_CHECKPOINT. */
enum status checkpoint_resume(const char *path, struct step *step, struct diagnostics *diagnostics,
                              const struct text *text, struct progress *progress);
/* The configuration inside (then overrides), and the vocabulary [256] symbol -> byte, its size returned in *V; what
 * eval and generate begin with. step: the number of updates done. */
enum status checkpoint_read_config(const char *path, struct comm *world, struct config *config,
                                   const char *const *overrides, int n_overrides, uint8_t *bytes, int64_t *V,
                                   int64_t *step);
/* Parameters and state alone. Those that the file has and the model has not (router and mix, where `joint` becomes
 * `discrete`) are left. */
enum status checkpoint_read_parameters(const char *path, struct lm *lm);
/* For a new run: of parameters and state those that the file has in the same shape (state of one router or quantizer
 * together or not at all), the others stay as they are; says how many, and which stay. STATUS_CHECKPOINT where nothing
 * fits, or the vocabulary is another one. */
enum status checkpoint_init_from(const char *path, struct lm *lm, const struct text *text);

/* The same for an open file and any group of it: used by step files too. Of what is trained (or of the state) one array
 * each, from or to a vector laid out as the parameter table is. */
enum status checkpoint_write_array(struct h5file *file, const char *name, const struct param *p, const real *at);
enum status checkpoint_write_arrays(struct h5file *file, const char *group, const struct params *params, bool state,
                                    const real *vector);
enum status checkpoint_read_arrays(struct h5file *file, const char *group, const struct params *params, bool state,
                                   real *vector);
enum status checkpoint_write_memory(struct h5file *file, const char *group, const struct step *step);
enum status checkpoint_read_memory(struct h5file *file, const char *group, struct step *step);

#endif
