/* What a run trains for (model.kind): where its batches come from, and the figures of a split. Two kinds: a language
 * model (task_language.c) and a classifier of texts (task_classifier.c). */
#ifndef VQMOE_TASK_H
#define VQMOE_TASK_H

#include "data/batches.h"
#include "data/examples.h"
#include "data/feed.h"
#include "train/checkpoint.h"
#include "train/control.h"
#include "train/scores.h"
#include "train/step.h"

/* Of a split. */
struct score {
    double loss;               /* nats per token; per example */
    int64_t count;             /* targets scored: tokens, examples */
    double accuracy, macro_f1; /* fractions; NAN: a language model's */
    double figure;             /* the lower the better, what the best checkpoint is chosen by: loss; 1 - accuracy */
    double seconds;            /* that it took; the caller's */
    int stop;                  /* of struct verdict, with STATUS_REQUEUE */
};

/* Room for a batch of labelled texts. */
struct text_batch {
    struct batch batch;
    int64_t *numbers;                   /* [rows] of the examples */
    int32_t *lengths, *labels, *tokens; /* [rows], [rows], [rows length] */
};
void text_batch_init(struct text_batch *batch, int64_t rows, int64_t length);
void text_batch_free(struct text_batch *batch);

struct task {
    const struct task_kind *kind;
    const struct config *config;
    struct comm *world;
    struct legend legend;
    int64_t V;            /* symbols of the model: the classifier has `<S>` too */
    int64_t classes;      /* C; 0: a language model */
    int64_t per_epoch;    /* batches, or for shuffled sentences how many of these */
    int64_t batch_tokens; /* of the batch that was read, over all ranks */

    /* A language model's. */
    struct text text;
    struct feed feed;
    int32_t *tokens, *targets; /* [local rows, L] of the current step */

    /* A classifier's. */
    struct vocabulary alphabet;
    struct labelled labelled;
    struct batches batches;
    struct text_batch batch;         /* that was read */
    struct scores scores;            /* of the split that was scored last */
    double *weights;                 /* [C] of classes in the loss; NULL: all 1 */
    int64_t epoch, place;            /* the cursor: batch `place` of the epoch */
    int64_t batch_examples, correct; /* of the last step, over all ranks */
};

/* Opens the data; a classifier's symbols are those of checkpoint `from`, where that is not NULL, else the data's own.
 * Collective over the world, errors agree; task_close takes a zeroed task too. */
enum status task_open(struct task *task, const struct config *config, struct comm *world, const char *from);
void task_close(struct task *task);
/* Once the model is there: memory for batches. */
enum status task_begin(struct task *task, struct step *step);

/* The cursor: into progress, and from one that was read from checkpoint `path`. STATUS_CHECKPOINT: no such place. */
void task_tell(const struct task *task, struct progress *progress);
enum status task_seek(struct task *task, const struct progress *progress, const char *path);

/* The batch at the cursor into memory; a rank that cannot read it ends the job. */
void task_read(struct task *task, const struct step *step);
/* Queues the gradients of what was read (step.h). Collective. */
void task_queue(struct task *task, struct step *step, int64_t number, struct routes *routes);
/* To the next batch; where an epoch begins the attention memory is emptied. */
void task_advance(struct task *task, struct step *step);

bool task_has(const struct task *task, enum split split);
/* Over all of a split, without dropout, after `step` updates; the same figure on any number of ranks, to rounding.
 * Where control, which may be NULL, is asked to stop it does, without a figure, and returns STATUS_REQUEUE. Collective.
 */
enum status task_score(struct task *task, struct score *score, struct model *model, enum split split, int64_t step,
                       struct pass_memory *arenas, const struct control *control);

/* Of the last training step, over all ranks; NAN of a language model. */
double task_accuracy(const struct task *task);
/* Tokens, or examples, that `steps` updates have seen. */
int64_t task_seen(const struct task *task, int64_t steps);

/* "loss 1.234 nats, 1.780 bpc", "loss 5.2 nats, perplexity 181.3", "loss 0.31 nats, accuracy 91.2%, macro-F1 90.8%"
 * (macro_f1 NAN: without) */
enum { TASK_FIGURES = 96 };
void task_figures(const struct task *task, double loss, double accuracy, double macro_f1, char out[TASK_FIGURES]);
/* What a best figure says. */
void task_best(const struct task *task, double figure, char out[TASK_FIGURES]);
/* Lines on the log: the data, and an epoch of it. */
void task_describe(const struct task *task);
/* After the test: what a classifier confused, on the log and in folder/confusion.tsv. Errors agree. STATUS_WRITE. */
enum status task_report(struct task *task, const char *folder);

#endif
