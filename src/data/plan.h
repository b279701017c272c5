/* What a preparation reads, and the pieces in which it does: the same on all ranks, kept in the folder's work/plan. */
#ifndef VQMOE_PLAN_H
#define VQMOE_PLAN_H

#include <limits.h>

#include "data/manifest.h"

/* Bytes of a piece, as nearly as lines allow: a shard of lm1b is one. Bounds the memory of a thread. */
enum { PIECE_BYTES = 48 << 20 };

/* A file that is read. */
struct source {
    char path[PATH_MAX];
    struct manifest_source is; /* sha256 empty: not known yet */
    bool archive;
};

/* A text: a plain source, or a member of an archive. Cut: it has all three splits, 90:5:5. */
struct member {
    int64_t source, index; /* index: of the archive's files */
    int64_t bytes;
    int64_t shard;      /* its number in its split */
    int32_t split, cut; /* enum split; boolean */
};

/* A piece of a member becomes a part of a split. */
struct piece {
    int64_t member, from, to; /* bytes */
    enum split split;
    int64_t number; /* in the split, as the parts are named */
};

struct plan {
    char tool[64];
    enum data_kind kind;
    enum newlines newlines;
    int64_t min_count;
    int64_t vocabulary; /* the source that is the vocabulary; -1: built from the training text */
    int64_t piece_bytes;
    struct source *sources; /* [n_sources], owned */
    int64_t n_sources;
    struct member *members; /* [n_members] by split and shard, owned; none before plan_find */
    int64_t n_members;
    struct piece *pieces; /* [n_pieces] by source, member and place: as they are read; owned */
    int64_t n_pieces;
};

/* What the configuration says. STATUS_CONFIG, STATUS_DATA: a file that is not there, or two where one is wanted; a
 * shard that is missing. Reads tar archives through for the names in them. plan_free takes a failed one too. */
enum status plan_make(struct plan *plan, const struct config *config, const char *tool, int64_t piece_bytes);
void plan_free(struct plan *plan);

/* Whether the folder was made of the same sources with the same options; if not, `what` says which differs. */
bool plan_fits(const struct plan *plan, const struct manifest *manifest, char *what, size_t size);

/* The plan as bytes, equal where plans are; the caller frees them. */
void *plan_bytes(const struct plan *plan, int64_t *size);
/* And back, whatever follows them. STATUS_DATA: `path` is no plan. */
enum status plan_from_bytes(struct plan *plan, const void *bytes, int64_t size, const char *path);

/* Words of a text are split by lines. */
static inline bool plan_has_lines(const struct plan *plan) { return plan->kind > DATA_TEXT; }

#endif
