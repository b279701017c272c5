#include "nn/ragged.h"

int64_t pass_token_first(const struct pass *pass) {
    return pass->ragged ? pass->ragged->token_first : pass->row_first * pass->positions;
}

int64_t ragged_tokens(const int32_t *lengths, int64_t rows) {
    int64_t tokens = 0;
    for (int64_t b = 0; b < rows; ++b) tokens += lengths[b];
    return tokens;
}

static const void *upload(const struct pass *pass, const void *pinned, int64_t bytes) {
    char *here = ARENA_ARRAY(pass->arena, char, bytes);
    device->upload(here, pinned, (size_t)bytes);
    return here;
}

/* lengths [B] of this rank's rows. */
static void place_tokens(struct ragged *ragged, const struct pass *pass, const int32_t *lengths) {
    int64_t B = pass->rows, N = pass->tokens, T = pass->positions, n = 0;
    int32_t *first = ARENA_ARRAY(pass->host, int32_t, B);
    int64_t *position = ARENA_ARRAY(pass->host, int64_t, N), *place = ARENA_ARRAY(pass->host, int64_t, N),
            *last = ARENA_ARRAY(pass->host, int64_t, B);
    for (int64_t b = 0; b < B; ++b) {
        first[b] = (int32_t)(T - lengths[b]);
        for (int64_t t = first[b]; t < T; ++t, ++n) {
            position[n] = t;
            place[n] = b * T + t;
        }
        last[b] = n - 1;
    }
    ragged->first = upload(pass, first, B * (int64_t)sizeof *first);
    ragged->position = upload(pass, position, N * (int64_t)sizeof *position);
    ragged->place = upload(pass, place, N * (int64_t)sizeof *place);
    ragged->last = upload(pass, last, B * (int64_t)sizeof *last);
}

void ragged_start(struct ragged *ragged, struct pass *pass, const int32_t *lengths, int64_t first, int64_t rows) {
    const int32_t *mine = lengths + pass->row_first;
    pass->ragged = ragged;
    pass->positions = 0;
    for (int64_t b = first; b < first + rows; ++b)
        if (lengths[b] > pass->positions) pass->positions = lengths[b];
    pass->tokens = ragged_tokens(mine, pass->rows);
    pass->tokens_micro = ragged_tokens(lengths + first, rows);
    ragged->token_first = ragged_tokens(lengths, pass->row_first);
    place_tokens(ragged, pass, mine);
}

const real *ragged_spread(const struct pass *pass, const real *packed, int64_t D) {
    if (!pass->ragged) return packed;
    int64_t places = pass->rows * pass->positions * D;
    real *out = ARENA_ARRAY(pass->arena, real, places);
    ops->fill(out, 0, places);
    ops->scatter_rows(out, packed, pass->ragged->place, 1, pass->tokens, D);
    return out;
}

const real *ragged_pack(const struct pass *pass, const real *spread, int64_t D) {
    if (!pass->ragged) return spread;
    real *out = ARENA_ARRAY(pass->arena, real, pass->tokens * D);
    ops->gather_rows(out, spread, pass->ragged->place, 1, pass->tokens, D);
    return out;
}
