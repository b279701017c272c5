#include "train/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* Rank 0 holds the one row; the others hold none, and take part in every collective call. */
static const real *logits_after(struct model *model, const struct generation *g, struct pass_memory *arenas,
                                struct memory *memory, const int32_t *tokens, int64_t T) {
    int64_t rows = model->world->rank == 0;
    struct pass pass = {.arena = &arenas->here,
                        .host = &arenas->host,
                        .step = g->step,
                        .rows = rows,
                        .positions = T,
                        .tokens = rows * T,
                        .tokens_micro = T,
                        .tokens_global = 1};
    pass_memory_reset(arenas);
    pass.ids_host = tokens;
    pass.ids = pass_upload(&pass, tokens, pass.tokens);
    model_forward(model, &pass, NULL, memory, 0, NULL);
    if (memory) memory_advance(memory, T);
    real *logits = ARENA_ARRAY(pass.host, real, rows * model->V);
    softmax_scores(&model->softmax, &pass, logits, model->hidden + rows * (T - 1) * model->d_model, rows);
    return rows ? logits : NULL;
}

static int32_t sample(const real *logits, int64_t V, const struct generation *g, int64_t position) {
    int32_t best = 0;
    for (int32_t i = 1; i < V; ++i)
        if (logits[i] > logits[best]) best = i;
    if (g->temperature <= 0) return best;
    uint32_t words[4];
    rng_words(words, rng_place(g->seed, position, RNG_SAMPLE, 0, 0), 0, 0);
    double sum = 0, at;
    for (int64_t i = 0; i < V; ++i) sum += exp((double)(logits[i] - logits[best]) / g->temperature);
    at = rng_uniform(words[0]) * sum;
    for (int32_t i = 0; i < V; ++i)
        if ((at -= exp((double)(logits[i] - logits[best]) / g->temperature)) < 0) return i;
    return best;
}

static int64_t encode(const struct model *model, const struct generation *g, int32_t *tokens) {
    int64_t count = 0, left = 0;
    for (const char *c = g->prompt; *c; ++c) {
        int32_t symbol = 0;
        while (symbol < model->V && g->byte_of[symbol] != (uint8_t)*c) ++symbol;
        if (symbol < model->V)
            tokens[count++] = symbol;
        else
            ++left;
    }
    if (left && model->world->rank == 0)
        log_warning("prompt: %lld bytes are not in the model's alphabet and were left out", (long long)left);
    if (!count) tokens[count++] = 0;
    return count;
}

double generate(struct model *model, const struct generation *g, struct pass_memory *arenas, FILE *out) {
    bool relative = model->config->model.attention == ATTENTION_RELATIVE;
    int64_t window = model->config->model.segment, capacity = model->config->model.memory + window;
    int32_t *tokens = malloc((strlen(g->prompt) + 1 + (size_t)g->tokens) * sizeof *tokens);
    if (!tokens) FATAL("out of memory");
    int64_t count = encode(model, g, tokens), fed = 0, end = count + g->tokens;
    struct memory memory;
    memory_init(&memory, model->layers, model->world->rank == 0, relative ? capacity : 0, model->d_model);
    if (model->world->rank == 0) fputs(g->prompt, out);
    double from = clock_seconds();
    for (; count < end; ++count) {
        const real *logits = NULL;
        if (!relative) fed = count > window ? count - window : 0;
        do {
            int64_t T = count - fed < window ? count - fed : window;
            logits = logits_after(model, g, arenas, relative ? &memory : NULL, tokens + fed, T);
            fed += T;
        } while (fed < count);
        if (model->world->rank == 0) {
            tokens[count] = sample(logits, model->V, g, count);
            fputc(g->byte_of[tokens[count]], out);
            fflush(out);
        }
        comm_broadcast(model->world, &tokens[count], sizeof *tokens, 0);
    }
    double seconds = clock_seconds() - from;
    if (model->world->rank == 0) fputc('\n', out);
    memory_free(&memory);
    free(tokens);
    return (double)g->tokens / seconds;
}
