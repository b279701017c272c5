/* How much memory a rank needs, from the shapes alone. docs/performance.md, Memory. */
#ifndef VQMOE_FOOTPRINT_H
#define VQMOE_FOOTPRINT_H

#include "train/step.h"

struct footprint {
    double parameters;  /* values, gradients, two moments: 4 reals a parameter held here */
    double activations; /* of the largest micro-batch, with the backward's scratch, rows spread evenly over experts */
    double memory;      /* attention memory of all local rows */
};

/* Bytes. */
struct footprint footprint_of(const struct step *step);

#endif
