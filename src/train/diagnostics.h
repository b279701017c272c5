/* How routing develops: a fixed probe set goes through the model every diagnostics.every steps; what it chose, how its
 * representations lie and how the experts were used since then becomes a line of metrics and a side file.
 * docs/diagnostics.md has each measure's formula, docs/metrics.md the keys. */
#ifndef VQMOE_DIAGNOSTICS_H
#define VQMOE_DIAGNOSTICS_H

#include "data/text.h"
#include "store/archive.h"
#include "store/snapshot.h"
#include "train/metrics.h"
#include "train/step.h"

/* One value a layer: of the probe; code usage and loads of training since the last regular line. */
enum measure {
    CHANGED_EXPERTS,
    CHANGED_CODES,
    EFFECTIVE_RANK,
    RANK_WITHIN,
    COSINE_WITHIN,
    COSINE_BETWEEN,
    VARIANCE_RATIO,
    CODE_PERPLEXITY,
    DEAD_CODES,
    CODE_TOKEN_BITS,
    LOAD_MAX,
    LOAD_CV,
    RANK_LOAD_MAX,
    MEASURES
};
extern const char *const measure_names[MEASURES]; /* keys of the metrics */

struct diagnostics {
    struct model *model; /* NULL: switched off, and every function but diagnostics_init does nothing */
    int64_t codes;       /* M, 0 without codes */
    bool routes;         /* there is a router, and experts */

    enum split split;
    int64_t rows, tokens; /* of the probe, over all ranks: the first rows of model.segment symbols of the split */
    int64_t *symbols;     /* [tokens] */

    int64_t *experts, *chosen;           /* [layers, tokens] first expert, code of the last look */
    int64_t *last_experts, *last_chosen; /* of the last regular line */
    bool has_last;
    double *measures; /* [layers, MEASURES] of the last look; NAN: not there */

    /* Training since the last regular line, over all ranks. */
    double *dropped, *load, *usage; /* [layers, 2], [layers, E], [layers, M] as in struct step_stats */
    int64_t *sent, *sent_before;    /* [ranks of the group] bytes of rows from this rank; as the last step began */
    int64_t steps;                  /* that `sent` counts */
};

/* config->diagnostics.tokens of the validation split, of the training split where that has no whole row. STATUS_DATA
 * where neither has. diagnostics_free takes a zeroed one too. */
enum status diagnostics_init(struct diagnostics *d, struct model *model, const struct text *text);
void diagnostics_free(struct diagnostics *d);

/* Around the forward and backward of a training step: adds up its loads and the bytes it sent. */
void diagnostics_before_step(struct diagnostics *d);
void diagnostics_after_step(struct diagnostics *d, const struct step *step);

/* The probe through the model after so many updates, without dropout and memory; fills experts, chosen and measures.
 * of_probe: loads and code usage are the probe's own, as there was no training. Collective over the world. */
void diagnostics_look(struct diagnostics *d, struct pass_memory *arenas, int64_t updates, bool of_probe);
/* Looks, and writes the line and folder/routing/UPDATES.h5. A regular line begins the next interval; one that is not
 * (at the end of training) leaves everything as it was, so that a run that goes on equals one that never stopped.
 * STATUS_WRITE. Collective over the world. */
enum status diagnostics_line(struct diagnostics *d, struct metrics *metrics, struct pass_memory *arenas,
                             const char *folder, int64_t updates, bool regular);

/* The interval and the last regular line's choices, in a checkpoint: /diagnostics. Collective over the world. */
void diagnostics_save(struct diagnostics *d, struct snapshot *snapshot);
/* What is absent or of another probe or layout starts afresh. For each rank alone. */
enum status diagnostics_restore(struct diagnostics *d, struct archive *archive);

/* Side files of a run folder: their numbers of updates, ascending, in *updates (the caller frees it); returns how many
 * there are. On any rank alone. */
int64_t diagnostics_files(const char *folder, int64_t **updates);
/* Removes those of later steps. STATUS_WRITE. */
enum status diagnostics_cut_back(const char *folder, int64_t step);

#endif
