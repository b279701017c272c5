/* Between checkpoint.c and init_from.c. */
#ifndef VQMOE_CHECKPOINT_PRIVATE_H
#define VQMOE_CHECKPOINT_PRIVATE_H

#include "train/checkpoint.h"

/* STATUS_CHECKPOINT: another version, or no checksums. */
enum status checkpoint_check_version(struct archive *archive);
/* The rows of p held here, to `at`. */
enum status checkpoint_read_array(struct archive *archive, const char *name, const struct param *p, real *at);
/* STATUS_CHECKPOINT: classes of other names, or none; a legend without classes fits all. */
enum status checkpoint_check_classes(struct archive *archive, const struct legend *legend);
/* The caller's. */
enum status checkpoint_vocabulary_of(struct archive *archive, struct vocabulary *vocabulary);

#endif
