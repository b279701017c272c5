#include "moe/routes.h"

#include <math.h>

#include "base/device.h"
#include "base/hash.h"

/* Beside the work of a step: reads and writes the device's memory through the host. */
void routes_apply(struct routes *routes, enum route_path path, int layer, int32_t *choices, const real *scores,
                  int64_t N, int64_t K, int64_t M) {
    if (!routes || !routes->choices[path]) return;
    int32_t *kept = routes->choices[path][layer] + routes->at * K;
    size_t bytes = (size_t)(N * K) * sizeof *kept, scores_bytes = (size_t)(N * M) * sizeof *scores;
    if (!routes->replay) {
        device->download(kept, choices, bytes);
        return;
    }
    const int32_t *own = device_view(choices, bytes);
    const real *score = device_view(scores, scores_bytes);
    for (int64_t i = 0; i < N * K; ++i) {
        if (kept[i] == own[i]) continue;
        double mine = score[i / K * M + own[i]], other = score[i / K * M + kept[i]];
        double gap = fabs(mine - other) / fmax(fmax(fabs(mine), fabs(other)), 1e-30);
        routes->flips++;
        routes->widest = fmax(routes->widest, gap);
    }
    device_view_close(own, choices);
    device_view_close(score, scores);
    device->upload(choices, kept, bytes);
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
