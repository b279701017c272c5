/* The units of a stage of a preparation, dealt over ranks and threads. */
#ifndef VQMOE_WORK_H
#define VQMOE_WORK_H

#include "data/prepare.h"
#include "data/stream.h"

/* A piece, or the digest of a source. */
struct unit {
    int64_t piece;  /* -1: a digest */
    int64_t source; /* of the digest */
    bool kept;      /* an earlier run has finished it */
};

struct work {
    struct preparation *p;
    const char *name; /* of the stage, for the progress line */
    /* Finishes a unit whose piece (of bytes: its first block) was read; a digest reads by itself. Called by threads
     * beside each other. */
    enum status (*run)(struct preparation *p, const struct unit *unit, struct load *load);
    enum status (*settle)(struct preparation *p, const struct unit *unit); /* of each once all are run; may be NULL */
    struct unit *units; /* [n_units], the same on all ranks but for `kept`; owned */
    int64_t n_units;

    int64_t next;
    enum status status;
    bool stopped;          /* by another rank */
    struct stream *stream; /* of the archive that is being read */
    int64_t source, index; /* which that is, and the member it stands at */
    double started;
    int64_t bytes, bytes_all; /* of the units begun, of all, here */
};

/* This rank's units; frees the list. */
enum status work_run(struct work *work);
void work_add(struct work *work, struct unit unit);

#endif
