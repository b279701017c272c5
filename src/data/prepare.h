/* `vqmoe data prepare`: sources into a folder of symbols (docs/data.md), in bounded memory, by any number of ranks and
 * threads alike. The ranks meet in the folder alone: what is finished stands in FOLDER/work until the manifest is
 * there, so a run that was interrupted goes on where it was. */
#ifndef VQMOE_PREPARE_H
#define VQMOE_PREPARE_H

#include "data/plan.h"

struct preparation {
    const struct config *config;
    int rank, ranks, threads;
    const char *tool;    /* "vqmoe 0.1.0" */
    bool (*asked)(void); /* whether to stop; from any thread */
    int64_t piece_bytes; /* PIECE_BYTES; tests take less */

    char folder[CONFIG_TEXT], work[CONFIG_TEXT + 8];
    int lock;                     /* of rank 0; -1 */
    bool done;                    /* the folder was finished before: of rank 0 */
    struct plan plan;             /* of rank 0 from begin on, of all from the survey on */
    struct vocabulary vocabulary; /* from encode on */
    int64_t units, kept;          /* pieces and digests of this rank; those that an earlier run had finished */
};

enum { PREPARE_THREADS = 16 }; /* at most: each holds a piece */

/* The stages, each on all ranks, which agree on the status after each; the first error ends the preparation.
 *   begin       rank 0: what is to be read, and whether the folder is of the same; takes its lock
 *   survey      each its share: the words (or bytes) of the pieces
 *   vocabulary  rank 0: of words
 *   encode      each its share: the parts, and SHA-256 of the sources (the survey has that of a source of one piece)
 *   end         rank 0: the manifest; removes FOLDER/work
 * STATUS_CONFIG: no data.prepared, another job at it, a folder made otherwise; STATUS_DATA: a source is not what it
 * should be; STATUS_WRITE; STATUS_REQUEUE: asked to stop, and what is finished is kept. */
enum status prepare_begin(struct preparation *p); /* the first six members are set, all else is zero */
enum status prepare_survey(struct preparation *p);
enum status prepare_vocabulary(struct preparation *p);
enum status prepare_encode(struct preparation *p);
enum status prepare_end(struct preparation *p);
void preparation_free(struct preparation *p); /* after any of them */

#endif
