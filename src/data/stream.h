/* The bytes of a text, a file or a member of an archive (tar, compressed or not, or zip), from first to last:
 * libarchive's home. */
#ifndef VQMOE_STREAM_H
#define VQMOE_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct stream; /* opaque */

/* Whether the file begins as a zip or a compressed file does. STATUS_DATA: cannot be read, or is no file. */
enum status stream_is_archive(const char *path, bool *archive);

/* The caller closes what was opened; NULL is fine. STATUS_DATA, here and below, naming the file. */
enum status stream_open(struct stream **stream, const char *path, bool archive);
void stream_close(struct stream *stream);
/* On to the next member that is a file: *name, the stream's until the next call, and its bytes; NULL at the end. A
 * plain file is its own only member. */
enum status stream_next(struct stream *stream, const char **name, int64_t *bytes);

/* Bytes of one piece, or a block of it. */
struct load {
    char *bytes; /* [room], owned; zeroed at first */
    int64_t size, room;
    int64_t start;         /* place of the first in the member */
    struct stream *stream; /* where the rest of the piece comes from, up to place `to`; NULL: all of it is here */
    int64_t to;
};
void load_free(struct load *load);

enum { STREAM_BLOCK = 1 << 18 }; /* bytes that stay in a core's cache */
/* The first block of bytes [from, to) of the member, then by stream_next_block the others: *more is false behind the
 * last. A piece that is here whole is its own first block. */
enum status stream_blocks(struct stream *stream, int64_t from, int64_t to, struct load *load);
enum status stream_next_block(struct load *load, bool *more);

/* Bytes [from, to) of the member; `lines`: the lines whose first byte lies there, each ended by a line feed. Pieces of
 * one member are asked for in rising order. */
enum status stream_piece(struct stream *stream, int64_t from, int64_t to, bool lines, struct load *load);

#endif
