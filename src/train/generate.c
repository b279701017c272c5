#include "train/generate.h"

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

/* The symbol of the next piece of a prompt (a byte, a word, a line's end); its length in *length, 0 at the end. */
static int32_t next_symbol(const struct vocabulary *v, const char *text, int64_t *length) {
    if (v->bytes) {
        *length = *text != '\0';
        return vocabulary_find(v, text, 1);
    }
    *length = *text == '\n' ? 1 : (int64_t)strcspn(text, " \t\n");
    if (*text == '\n') return v->end;
    int32_t symbol = vocabulary_find(v, text, *length);
    return symbol < 0 ? v->unknown : symbol;
}

static int64_t encode(const struct model *model, const struct generation *g, int32_t *tokens) {
    const struct vocabulary *v = g->vocabulary;
    int64_t count = 0, left = 0, length;
    for (const char *at = g->prompt;; at += length) {
        if (!v->bytes) at += strspn(at, " \t");
        int32_t symbol = next_symbol(v, at, &length);
        if (!length) break;
        if (symbol >= 0)
            tokens[count++] = symbol;
        else
            ++left;
    }
    if (left && model->world->rank == 0)
        log_warning("prompt: %lld %s are not in the model's vocabulary and were left out", (long long)left,
                    v->bytes ? "bytes" : "words");
    if (!count) tokens[count++] = v->bytes || v->end < 0 ? 0 : v->end;
    return count;
}

static void print(const struct vocabulary *v, int32_t symbol, FILE *out) {
    int64_t length;
    const char *text = vocabulary_symbol(v, symbol, &length);
    if (!v->bytes && symbol == v->end)
        fputc('\n', out);
    else
        fwrite(text, 1, (size_t)length, out);
    if (!v->bytes && symbol != v->end) fputc(' ', out);
    fflush(out);
}

/* Of stream 0. */
static double draw(const struct generation *g, int64_t position) {
    uint32_t words[4];
    rng_words(words, rng_place(g->seed, position, RNG_SAMPLE, 0, 0), 0, 0);
    return rng_uniform(words[0]);
}

double generate(struct model *model, const struct generation *g, struct pass_memory *arenas, FILE *out) {
    bool relative = model->config->model.attention == ATTENTION_RELATIVE;
    int64_t window = model->config->model.segment, capacity = model->config->model.memory + window;
    int32_t *tokens = malloc((strlen(g->prompt) + 1 + (size_t)g->tokens) * sizeof *tokens);
    if (!tokens) FATAL("out of memory");
    int64_t count = encode(model, g, tokens), fed = 0, end = count + g->tokens;
    struct memory memory;
    memory_init(&memory, model->layers, model->world->rank == 0, relative ? capacity : 0, model->d_model);
    if (model->world->rank == 0) fprintf(out, "%s%s", g->prompt, g->vocabulary->bytes || !*g->prompt ? "" : " ");
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
            tokens[count] = sample(&g->sampling, logits, model->V, draw(g, count));
            print(g->vocabulary, tokens[count], out);
        }
        comm_broadcast(model->world, &tokens[count], sizeof *tokens, 0);
    }
    double seconds = clock_seconds() - from;
    if (model->world->rank == 0) fputc('\n', out);
    memory_free(&memory);
    free(tokens);
    return (double)g->tokens / seconds;
}
