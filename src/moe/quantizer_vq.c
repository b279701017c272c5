/* The plain codebook (arXiv 1711.00937): nearest code by squared distance, which the gradient of L_vq moves. */
#include "moe/quantizer.h"

static void init(struct quantizer *q, struct params *params, const struct config *config) {
    quantizer_add_codes(q, params, config, PLACE_REPLICATED);
}

const struct quantizer_kind quantizer_vq = {.name = "vq", .codes_lose = 1, .init = init};
