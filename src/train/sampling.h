/* One symbol from a model's scores. */
#ifndef VQMOE_SAMPLING_H
#define VQMOE_SAMPLING_H

#include <stdint.h>

#include "base/real.h"

struct sampling {
    double temperature; /* 0: always the best symbol, the lowest of equals */
    int64_t top_k;      /* of the k best alone; 0: of all */
    double top_p;       /* of the fewest best whose probabilities reach p; 1: of all (arXiv 1904.09751) */
};

/* scores [V]: logits, or log-probabilities; uniform in (0, 1) decides. Of equal scores the lower symbol is the better;
 * top_p counts among what top_k left, after the temperature. */
int32_t sample(const struct sampling *sampling, const real *scores, int64_t V, double uniform);

#endif
