#include "train/batch.h"

static double weight_of(const struct batch *batch, int64_t b) {
    return batch->weights ? batch->weights[batch->labels[b]] : 1;
}

static const real *upload_shares(const struct batch *batch, const struct pass *pass) {
    real *here = ARENA_ARRAY(pass->arena, real, pass->rows), *pinned = ARENA_ARRAY(pass->host, real, pass->rows);
    double sum = 0;
    for (int64_t b = 0; b < batch->rows; ++b) sum += weight_of(batch, b);
    for (int64_t b = 0; b < pass->rows; ++b) pinned[b] = (real)(weight_of(batch, pass->row_first + b) / sum);
    device->upload(here, pinned, (size_t)pass->rows * sizeof *here);
    return here;
}

const int32_t *batch_start(const struct batch *batch, struct pass *pass, struct ragged *ragged, int64_t first,
                           int64_t rows) {
    ragged_start(ragged, pass, batch->lengths, first, rows);
    pass->tokens_global = ragged_tokens(batch->lengths, batch->rows);
    pass->ids_host = batch->tokens + ragged->token_first;
    pass->ids = pass_upload(pass, pass->ids_host, pass->tokens);
    if (!batch->labels) return NULL;
    pass->shares = upload_shares(batch, pass);
    return batch->labels + pass->row_first;
}
