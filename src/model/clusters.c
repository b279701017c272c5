#include "model/clusters.h"

#include <stdio.h>
#include <stdlib.h>

static enum status refuse(const char *found, int64_t V) {
    return status_fail(STATUS_CONFIG,
                       "model.cutoffs: expected 1 to %d rising numbers, above 0 and below the vocabulary's %lld "
                       "symbols, found '%s'",
                       CLUSTERS - 1, (long long)V, found);
}

enum status clusters_init(struct clusters *clusters, const struct config *config, int64_t V) {
    const char *at = config->model.cutoffs;
    *clusters = (struct clusters){.count = 1, .first = {0, V}};
    while (config->model.softmax == SOFTMAX_ADAPTIVE) {
        char *end;
        int64_t cutoff = strtoll(at, &end, 10);
        if (end == at || (*end && *end != ',') || clusters->count == CLUSTERS || cutoff >= V ||
            cutoff <= clusters->first[clusters->count - 1])
            return refuse(config->model.cutoffs, V);
        clusters->first[clusters->count++] = cutoff;
        clusters->first[clusters->count] = V;
        if (!*end) break;
        at = end + 1;
    }
    return STATUS_OK;
}

static struct param *add(struct params *params, int c, const char *owner, const char *what, bool sharded,
                         struct initial initial, int rank, const int64_t *shape) {
    char name[PARAM_NAME];
    if (c)
        snprintf(name, sizeof name, "%s.tail_%d.%s", owner, c, what);
    else
        snprintf(name, sizeof name, "%s.%s", owner, what);
    return params_add(params, -1, name, sharded ? PLACE_VOCABULARY : PLACE_REPLICATED, initial, rank, shape);
}

void clusters_add_weights(const struct clusters *clusters, struct param **parameter, struct params *params,
                          const char *owner, bool sharded, int64_t d) {
    for (int c = 0; c < clusters->count; ++c)
        parameter[c] =
            add(params, c, owner, "weight", sharded, INITIAL_WEIGHT, 2, (int64_t[]){clusters_rows(clusters, c), d});
}

void clusters_add_biases(const struct clusters *clusters, struct param **parameter, struct params *params,
                         const char *owner, bool sharded) {
    for (int c = 0; c < clusters->count; ++c)
        parameter[c] = add(params, c, owner, "bias", sharded, INITIAL_ZERO, 1, (int64_t[]){clusters_rows(clusters, c)});
}
