#include "train/classify.h"

#include <math.h>

#include "base/block.h"

void classify(real *logits, struct model *model, const struct batch *batch, int64_t step, struct pass_memory *memory) {
    struct comm *world = model->world;
    int64_t C = model->head.classes, all = batch->rows * C;
    struct pass pass = {.arena = &memory->here,
                        .host = &memory->host,
                        .step = step,
                        .rows = block_count(batch->rows, world->size, world->rank),
                        .row_first = block_first(batch->rows, world->size, world->rank)};
    struct ragged ragged;
    pass_memory_reset(memory);
    batch_start(batch, &pass, &ragged, 0, batch->rows);
    model_forward(model, &pass, NULL, NULL, 0, NULL);
    for (int64_t i = 0; i < all; ++i) logits[i] = 0;
    device->download(logits + pass.row_first * C, model->head.logits, (size_t)(pass.rows * C) * sizeof *logits);
    comm_allreduce(world, logits, all, COMM_REAL, COMM_SUM);
}

int64_t classify_choice(const real *logits, int64_t classes) {
    int64_t best = 0;
    for (int64_t c = 1; c < classes; ++c)
        if (logits[c] > logits[best]) best = c;
    return best;
}

double classify_loss(const real *logits, int64_t classes, int32_t label) {
    double top = (double)logits[classify_choice(logits, classes)], sum = 0;
    for (int64_t c = 0; c < classes; ++c) sum += exp((double)logits[c] - top);
    return top + log(sum) - (double)logits[label];
}
