/* What a labelled file holds: a text, a label and a place for each record, before labels are classes. One reader per
 * format, all of them from memory; of data/examples.c and the tests. */
#ifndef VQMOE_RECORDS_H
#define VQMOE_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "data/text.h"

struct record {
    int64_t text, size;   /* where it begins in `bytes`, how long it is; trimmed */
    int64_t label, place; /* the same, ended by 0: "card_arrival"; a line or a member: "12", "train/pos/0_9.txt" */
};

struct records {
    const char *path; /* the caller's, for messages */
    char *bytes;      /* owned */
    int64_t used, room;
    struct record *list; /* [count], owned */
    int64_t count, list_room;
    enum {
        HEADER_NONE,
        HEADER_PERHAPS,
        HEADER_NAMED
    } header; /* of columns: the first in the list; found, and left out */
};

void records_free(struct records *records);

/* Trims the text and the label. STATUS_DATA: one of them is empty, or the text has more than 2^31 - 1 bytes. */
enum status records_add(struct records *records, const char *text, int64_t size, const char *label, int64_t label_size,
                        const char *place);

/* A whole file as config's data.kind wants it; `part` of imdb ("train" or "test"), which may be without records. Checks
 * UTF-8; a byte order mark is skipped. */
enum status records_parse(struct records *records, const char *bytes, int64_t size, const struct config *config,
                          const char *part);

/* The formats; text is checked before. */
enum status records_csv(struct records *records, const char *bytes, int64_t size, const struct config *config);
enum status records_tsv(struct records *records, const char *bytes, int64_t size, const struct config *config);
enum status records_trees(struct records *records, const char *bytes, int64_t size);
/* In order of class and number. */
enum status records_imdb_archive(struct records *records, const char *bytes, int64_t size, const char *part);
enum status records_imdb_folder(struct records *records, const char *part);

/* Headers taken away, classes found, a split for validation taken of training where there is none: what labelled_open
 * does after reading. */
struct labelled;
enum status labelled_from(struct labelled *labelled, struct records records[SPLITS]);

/* ---- What they share ---- */

/* The first bytes of what a file holds, fit for a message: cut at 40 bytes, control characters as '?'. */
struct shown {
    char text[48];
};
struct shown shown_bytes(const char *bytes, int64_t size);

/* Room for `needed` elements in an owned array, which at least doubles. STATUS_INTERNAL: memory. */
enum status reserve(void **array, int64_t *room, int64_t needed, size_t element);

/* [*size] bytes of a file, owned. STATUS_DATA: missing, no file, unreadable, empty. */
enum status file_read(const char *path, char **bytes, int64_t *size);

/* STATUS_DATA, naming `path` and the line: NUL or invalid UTF-8. */
enum status utf8_check(const char *path, const char *bytes, int64_t size);

/* Without ASCII white space at its ends. */
void trim(const char **bytes, int64_t *size);

#endif
