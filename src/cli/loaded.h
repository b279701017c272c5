/* A checkpoint ready to be used on data: what eval and inspect --routing begin with. */
#ifndef VQMOE_LOADED_H
#define VQMOE_LOADED_H

#include "cli/cli.h"
#include "data/text.h"
#include "model/model.h"

struct loaded {
    struct config config;
    struct text text;
    struct vocabulary vocabulary; /* the checkpoint's, and so the text's */
    struct model model;
    int64_t step; /* updates done */
};

/* Configuration (then the overrides), data with the checkpoint's alphabet, parameters; starts the operations. The
 * result stays where it is: the model points into it. loaded_free takes a failed one too. Collective over the world. */
enum status loaded_open(struct loaded *loaded, const struct arguments *arguments, struct comm *world);
void loaded_free(struct loaded *loaded);

#endif
