/* Between the stages: names in FOLDER/work. */
#ifndef VQMOE_PREPARE_PRIVATE_H
#define VQMOE_PREPARE_PRIVATE_H

#include "data/work.h"

enum { PREPARE_NAME = 64 };

void prepare_name_digest(char name[PREPARE_NAME], int64_t source);
void prepare_name_seen(char name[PREPARE_NAME], const struct piece *piece); /* bytes that occur, or words counted */
void prepare_name_done(char name[PREPARE_NAME], const struct piece *piece); /* struct manifest_part of a part */

/* Reads a note (output.h) of n bytes that some rank has written. */
bool prepare_await(const struct preparation *p, const char *name, void *bytes, int64_t n);
/* SHA-256 of a source, noted. STATUS_DATA, STATUS_WRITE. */
enum status prepare_digest(const struct preparation *p, int64_t source);
/* Of the sources that no piece of the survey is the whole of. */
void prepare_list_digests(struct work *work);

#endif
