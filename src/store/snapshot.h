/* What is to be written, held in memory until it is: named global arrays and attributes of which every rank of a group
 * holds some rows. The file: docs/checkpoint-format.md.
 *
 * Written in three parts, so that training goes on during the second: begin (all ranks: the file is laid out beside
 * its place), fill (each rank alone, in any thread: its rows into their places, synced; no MPI, no HDF5), end (all
 * ranks: renamed to its place, or removed). */
#ifndef VQMOE_SNAPSHOT_H
#define VQMOE_SNAPSHOT_H

#include "comm/comm.h"
#include "store/h5.h"

struct snapshot; /* opaque */

/* For the ranks of comm, which is borrowed; NULL: this process alone. */
struct snapshot *snapshot_new(struct comm *comm);
void snapshot_free(struct snapshot *snapshot); /* NULL is fine; not while it is filled */
/* Empty again; the memory stays for the next. */
void snapshot_clear(struct snapshot *snapshot);

/* Rows [first, first + count) of axis 0 of the global array `name`: returns the place for them, row-major, that the
 * caller fills before the next call; never NULL. All ranks name the same arrays in the same order, those without rows
 * with count 0; the same name again, not necessarily next, adds rows. Each row is put by exactly one rank. "/checksums"
 * is the file's own. */
void *snapshot_put(struct snapshot *snapshot, const char *name, enum h5_type type, int rank, const int64_t *shape,
                   int64_t first, int64_t count);
/* Attributes of the file: the same on all ranks. */
void snapshot_put_int(struct snapshot *snapshot, const char *name, int64_t value);
void snapshot_put_real(struct snapshot *snapshot, const char *name, double value);
void snapshot_put_text(struct snapshot *snapshot, const char *name, const char *value);
/* Of rows held here. */
int64_t snapshot_bytes(const struct snapshot *snapshot);

/* Collective, once between two snapshot_clear. Rank 0 lays out `path`.tmp and takes the disk's space for all of it.
 * STATUS_WRITE, on all ranks (one has the message); nothing is left behind then. */
enum status snapshot_begin(struct snapshot *snapshot, const char *path);
/* This rank's part, with the checksum of each slab. What fails is kept for snapshot_end. After a begin that succeeded,
 * once. */
void snapshot_fill(struct snapshot *snapshot);
/* Collective, after every rank's fill. STATUS_WRITE: the temporary file removed and `path` as it was, or, where only
 * the folder could not be synced, new. */
enum status snapshot_end(struct snapshot *snapshot);

/* All three. */
enum status snapshot_write(struct snapshot *snapshot, const char *path);

#endif
