/* The files that a path of the configuration stands for: itself, those of an archive, or those of a folder. */
#ifndef VQMOE_CANDIDATES_H
#define VQMOE_CANDIDATES_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct candidate {
    char path[PATH_MAX]; /* of the file or archive */
    char name[256];      /* without folders */
    bool archive;
    int64_t index; /* of the archive's files */
    int64_t bytes;
};

struct candidates {
    const char *key, *path; /* of the configuration: "data.train" */
    struct candidate *list; /* [count] folders by name, archives in their order; owned */
    int64_t count;
};

/* STATUS_DATA. candidates_free takes a failed one too. */
enum status candidates_find(struct candidates *found, const char *key, const char *path);
void candidates_free(struct candidates *found);

#endif
