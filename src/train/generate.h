/* Text from a language model. */
#ifndef VQMOE_GENERATE_H
#define VQMOE_GENERATE_H

#include <stdio.h>

#include "data/vocabulary.h"
#include "model/model.h"
#include "train/sampling.h"

struct generation {
    const struct vocabulary *vocabulary;
    const char *prompt; /* words: those the model does not know become its `<unk>`; a line feed ends a sentence. What
                           has no symbol at all is left out, with a warning */
    int64_t tokens;     /* to generate */
    struct sampling sampling;
    uint64_t seed;
    int64_t step; /* updates that the model has seen */
};

/* Writes the prompt and then each symbol to out, on rank 0. Relative attention carries its memory: each symbol is one
 * pass over one position; absolute attention computes its window of model.segment symbols anew. Returns symbols
 * generated per second. Collective over the world. */
double generate(struct model *model, const struct generation *generation, struct pass_memory *arenas, FILE *out);

#endif
