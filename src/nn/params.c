#include "nn/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/block.h"
#include "base/device.h"
#include "base/hash.h"
#include "base/log.h"
#include "nn/initial.h"

struct param *params_add(struct params *params, int layer, const char *name, enum placement placement,
                         struct initial initial, int rank, const int64_t *shape) {
    struct param *param = calloc(1, sizeof *param);
    params->list = realloc(params->list, (size_t)(params->count + 1) * sizeof *params->list);
    if (!param || !params->list) FATAL("out of memory");
    params->list[params->count++] = param;
    if (layer < 0)
        snprintf(param->name, sizeof param->name, "%s", name);
    else
        snprintf(param->name, sizeof param->name, "layer.%d.%s", layer, name);
    CHECK(rank >= 1 && rank <= PARAM_RANK);
    param->rank = rank;
    memcpy(param->shape, shape, (size_t)rank * sizeof *shape);
    param->placement = placement;
    param->initial = initial;
    param->first = 0;
    param->count = shape[0];
    if (placement == PLACE_EXPERT) {
        param->first = params->experts_first;
        param->count = params->experts_count;
    } else if (placement == PLACE_VOCABULARY) {
        CHECK(params->ranks > 0);
        param->first = block_first(shape[0], params->ranks, params->rank);
        param->count = block_count(shape[0], params->ranks, params->rank);
    }
    param->size = param->count;
    for (int i = 1; i < rank; ++i) param->size *= shape[i];
    return param;
}

static size_t bytes_of(int64_t n) { return (size_t)(n ? n : 1) * sizeof(real); }

static real *vector_of(int64_t n) {
    real *vector = device->allocate(bytes_of(n));
    if (!vector) {
        size_t left, all;
        device->memory(&left, &all);
        FATAL(
            "out of %s memory: %lld parameters here need %zu MiB in each of four vectors (values, gradients, Adam's "
            "two moments), %zu of %zu MiB are free: use more ranks, or parallel.vocabulary, or lower model.d_inner or moe.experts",
            device->name, (long long)n, bytes_of(n) >> 20, left >> 20, all >> 20);
    }
    device->set(vector, 0, bytes_of(n));
    return vector;
}

static void vector_free(real *vector, int64_t n) {
    if (vector) device->release(vector, bytes_of(n));
}

void params_allocate(struct params *params, int with_moments) {
    params->total = 0;
    for (int placement = PLACE_REPLICATED; placement <= PLACE_STATE; ++placement) {
        for (int i = 0; i < params->count; ++i) {
            struct param *param = params->list[i];
            if ((int)param->placement != placement) continue;
            param->offset = params->total;
            params->total += (param->size + PARAM_ALIGN - 1) / PARAM_ALIGN * PARAM_ALIGN;
        }
        if (placement == PLACE_REPLICATED) params->replicated = params->total;
        if (placement == PLACE_EXPERT) params->with_experts = params->total;
        if (placement == PLACE_VOCABULARY) params->trained = params->total;
    }
    params->data = vector_of(params->total);
    if (with_moments) {
        params->grad = vector_of(params->trained);
        params->m = vector_of(params->trained);
        params->v = vector_of(params->trained);
        params->update = device_zeros(UPDATE * sizeof *params->update, "the optimizer");
    }
    for (int i = 0; i < params->count; ++i) {
        struct param *param = params->list[i];
        param->data = params->data + param->offset;
        param->grad = params->grad && param->placement != PLACE_STATE ? params->grad + param->offset : NULL;
    }
}

/* In pieces: a second copy of a large table would be a rank's peak of memory. */
static void initialise(struct param *p, uint64_t seed) {
    enum { PIECE = 1 << 20 };
    int64_t row = p->count ? p->size / p->count : 0, piece = p->size;
    if (p->initial.kind != INITIAL_ORTHOGONAL && piece > PIECE) piece = PIECE;
    real *values = malloc(bytes_of(piece));
    if (!values) FATAL("out of memory");
    for (int64_t at = 0; at < p->size; at += piece) {
        int64_t n = p->size - at < piece ? p->size - at : piece;
        initial_fill(values, &p->initial, seed, p->name, p->first * row + at, n, p->shape[0]);
        device->upload(p->data + at, values, (size_t)n * sizeof *values);
    }
    free(values);
}

void params_initialise(struct params *params, uint64_t seed) {
    for (int i = 0; i < params->count; ++i) initialise(params->list[i], seed);
}

int64_t params_global_size(const struct params *params) {
    int64_t total = 0;
    for (int i = 0; i < params->count; ++i) {
        int64_t size = params->list[i]->placement != PLACE_STATE;
        for (int axis = 0; axis < params->list[i]->rank; ++axis) size *= params->list[i]->shape[axis];
        total += size;
    }
    return total;
}

int64_t params_local_size(const struct params *params) {
    int64_t total = 0;
    for (int i = 0; i < params->count; ++i) total += params->list[i]->size;
    return total;
}

uint64_t params_hash(const struct params *params) {
    const real *data = device_view(params->data, bytes_of(params->total));
    uint64_t hash = hash_bytes(data, (size_t)params->replicated * sizeof *data, 0);
    hash = hash_bytes(data + params->trained, (size_t)(params->total - params->trained) * sizeof *data, hash);
    device_view_close(data, params->data);
    return hash;
}

void params_free(struct params *params) {
    for (int i = 0; i < params->count; ++i) free(params->list[i]);
    free(params->list);
    vector_free(params->data, params->total);
    vector_free(params->grad, params->trained);
    vector_free(params->m, params->trained);
    vector_free(params->v, params->trained);
    if (params->update) device->release(params->update, UPDATE * sizeof *params->update);
    *params = (struct params){0};
}
