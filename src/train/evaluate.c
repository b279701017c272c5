#include "train/evaluate.h"

#include <stdlib.h>

#include "base/block.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/phase.h"

enum { POLL_EVERY = 16 }; /* segments */

enum status evaluate(struct evaluation *result, struct model *model, const struct text *text, enum split split,
                     int64_t step, struct pass_memory *arenas, const struct control *control) {
    const struct config *config = model->config;
    struct comm *world = model->world;
    struct streams streams;
    enum status status = streams_init(&streams, text, split, config->eval.batch, config->eval.segment, 1);
    if (status) return comm_agree(world, status);
    int64_t first = block_first(streams.rows, world->size, world->rank),
            rows = block_count(streams.rows, world->size, world->rank);
    int64_t capacity = config->model.memory == 0  ? 0
                       : config->eval.memory >= 0 ? config->eval.memory
                                                  : config->model.memory + config->model.segment - config->eval.segment;
    struct memory memory;
    memory_init(&memory, model->layers, rows, capacity > 0 ? capacity : 0, model->d_model);
    int32_t *tokens = malloc((size_t)(2 * rows * streams.segment + 1) * sizeof *tokens),
            *targets = tokens + rows * streams.segment;
    if (!tokens) FATAL("out of memory");
    double sum = 0;
    int64_t scored = 0;
    int stop = 0;
    enum phase before = phase_now();
    for (int64_t i = 0, T; i < streams.segments && !stop; ++i) {
        phase_enter(PHASE_VALIDATE);
        FAULT_POINT("evaluation");
        if ((status = streams_read(&streams, i, first, rows, tokens, targets, &T)))
            FATAL_STATUS(status, "%s", status_message()); /* the other ranks are on their way */
        struct pass pass = {.arena = &arenas->here,
                            .host = &arenas->host,
                            .step = step,
                            .rows = rows,
                            .row_first = first,
                            .positions = T,
                            .tokens = rows * T,
                            .tokens_micro = streams.rows * T,
                            .tokens_global = 1};
        pass_memory_reset(arenas);
        pass.ids_host = tokens;
        pass.ids = pass_upload(&pass, tokens, pass.tokens);
        model_forward(model, &pass, NULL, memory.capacity ? &memory : NULL, 0, targets);
        sum += model_loss(model, &pass).task;
        memory_advance(&memory, T);
        scored += streams.rows * T;
        log_progress("%s: %lld of %lld segments", split_names[split], (long long)i + 1, (long long)streams.segments);
        if (control && i % POLL_EVERY == 0) stop = control_agree(control, world, false).stop;
    }
    free(tokens);
    memory_free(&memory);
    comm_allreduce(world, &sum, 1, COMM_DOUBLE, COMM_SUM);
    phase_enter(before);
    *result = (struct evaluation){sum / (double)scored, scored, stop};
    return stop ? STATUS_REQUEUE : STATUS_OK;
}
