/* Between the stages: names in FOLDER/work. */
#ifndef VQMOE_PREPARE_PRIVATE_H
#define VQMOE_PREPARE_PRIVATE_H

#include "data/prepare.h"

enum { PREPARE_NAME = 64 };

void prepare_name_digest(char name[PREPARE_NAME], int64_t source);
void prepare_name_seen(char name[PREPARE_NAME], const struct piece *piece); /* bytes that occur, or words counted */
void prepare_name_done(char name[PREPARE_NAME], const struct piece *piece); /* struct manifest_part of a part */

/* Whether folder/name is there with exactly n bytes; reads them. */
bool prepare_load(const char *folder, const char *name, void *bytes, int64_t n);

#endif
