#include "moe/routes.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"

void routes_apply(struct routes *routes, enum route_path path, int layer, int32_t *choices, const real *scores,
                  int64_t N, int64_t K, int64_t M) {
    if (!routes || !routes->choices[path]) return;
    int32_t *kept = routes->choices[path][layer] + routes->at * K;
    if (!routes->replay) {
        memcpy(kept, choices, (size_t)(N * K) * sizeof *kept);
        return;
    }
    for (int64_t i = 0; i < N * K; ++i) {
        if (kept[i] == choices[i]) continue;
        double own = scores[i / K * M + choices[i]], other = scores[i / K * M + kept[i]];
        double gap = fabs(own - other) / fmax(fmax(fabs(own), fabs(other)), 1e-30);
        routes->flips++;
        routes->widest = fmax(routes->widest, gap);
    }
    memcpy(choices, kept, (size_t)(N * K) * sizeof *kept);
}

uint64_t routes_hash(const int32_t *choices, int64_t first, int64_t N, int64_t K) {
    uint64_t sum = 0;
    for (int64_t n = 0; n < N; ++n) {
        uint64_t hash = (uint64_t)(first + n);
        for (int64_t j = 0; j < K; ++j) hash = hash_splitmix64(hash ^ (uint64_t)choices[n * K + j] << 40);
        sum += hash;
    }
    return sum;
}
