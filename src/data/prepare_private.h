/* Between the stages: names in FOLDER/work. */
#ifndef VQMOE_PREPARE_PRIVATE_H
#define VQMOE_PREPARE_PRIVATE_H

#include "data/prepare.h"

enum { PREPARE_NAME = 64 };

void prepare_name_digest(char name[PREPARE_NAME], int64_t source);
void prepare_name_seen(char name[PREPARE_NAME], const struct piece *piece); /* bytes that occur, or words counted */
void prepare_name_done(char name[PREPARE_NAME], const struct piece *piece); /* struct manifest_part of a part */

/* Reads a note (output.h) of n bytes that some rank has written. */
bool prepare_await(const struct preparation *p, const char *name, void *bytes, int64_t n);

#endif
