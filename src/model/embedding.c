#include "model/embedding.h"

#include <math.h>
#include <string.h>

#include "base/block.h"

enum status embedding_init(struct embedding *embedding, struct params *params, const struct config *config, int64_t V,
                           struct comm *owners) {
    *embedding = (struct embedding){.d_model = config->model.d_model, .owners = owners};
    TRY(clusters_init(&embedding->clusters, config, V));
    if (!config->model.tied) embedding->clusters = (struct clusters){.count = 1, .first = {0, V}};
    clusters_add_weights(&embedding->clusters, embedding->weight, params, "embedding", owners != NULL,
                         embedding->d_model);
    return STATUS_OK;
}

/* ---- Who needs which rows ---- */

/* Symbols as bits. */
struct set {
    uint64_t *bits;  /* [words] */
    int64_t *before; /* [words] members in the words before */
};

static struct set set_of(const struct pass *pass, int64_t V, const int64_t *symbols, int64_t n) {
    int64_t words = V / 64 + 1, members = 0;
    struct set set = {ARENA_ARRAY(pass->host, uint64_t, words), ARENA_ARRAY(pass->host, int64_t, words)};
    memset(set.bits, 0, (size_t)words * sizeof *set.bits);
    for (int64_t i = 0; i < n; ++i) set.bits[symbols[i] / 64] |= 1ull << symbols[i] % 64;
    for (int64_t w = 0; w < words; ++w) {
        set.before[w] = members;
        members += __builtin_popcountll(set.bits[w]);
    }
    return set;
}

/* Members below the symbol. */
static int64_t members_below(const struct set *set, int64_t symbol) {
    uint64_t below = (1ull << symbol % 64) - 1;
    return set->before[symbol / 64] + __builtin_popcountll(set->bits[symbol / 64] & below);
}

/* The symbols of a cluster that a rank has. */
struct range {
    int64_t first, end;
};
static struct range range_of(const struct embedding *e, int c, int rank) {
    int64_t first = e->clusters.first[c], end = e->clusters.first[c + 1], rows = e->weight[c]->shape[0];
    struct range range = {first + block_first(rows, owners_size(e->owners), rank), 0};
    range.end = range.first + block_count(rows, owners_size(e->owners), rank);
    if (range.first > end) range.first = end; /* cluster vectors are nobody's embedding */
    if (range.end > end) range.end = end;
    return range;
}

static struct comm_blocks blocks_take(const struct pass *pass, int ranks, int clusters) {
    struct comm_blocks blocks = {ARENA_ARRAY(pass->host, int, ranks),
                                 ARENA_ARRAY(pass->host, int64_t, ranks * clusters),
                                 ARENA_ARRAY(pass->host, int64_t, ranks * clusters)};
    for (int r = 0; r < ranks; ++r) blocks.per_peer[r] = clusters;
    return blocks;
}

/* Members of the range, as rows of the table part that begins with `first`; returns how many. */
static int64_t list_rows(int32_t *rows, const struct set *set, struct range range, int64_t first) {
    int64_t n = 0;
    for (int64_t word = range.first / 64; word * 64 < range.end; ++word)
        for (uint64_t left = set->bits[word]; left; left &= left - 1) {
            int64_t symbol = word * 64 + __builtin_ctzll(left);
            if (symbol >= range.first && symbol < range.end) rows[n++] = (int32_t)(symbol - first);
        }
    return n;
}

static int64_t count_asked(const struct embedding *e, const struct set *sets, int c, int rank) {
    struct range mine = range_of(e, c, owners_rank(e->owners));
    return members_below(&sets[rank], mine.end) - members_below(&sets[rank], mine.first);
}

static void plan_leaving(const struct embedding *e, const struct pass *pass, struct lookup *lookup,
                         const struct set *sets) {
    int ranks = owners_size(e->owners), clusters = e->clusters.count;
    int64_t asked = 0;
    for (int c = 0; c < clusters; ++c)
        for (int r = 0; r < ranks; ++r) asked += count_asked(e, sets, c, r);
    int32_t *rows = ARENA_ARRAY(pass->host, int32_t, asked);
    lookup->leave = blocks_take(pass, ranks, clusters);
    asked = 0;
    for (int c = 0; c < clusters; ++c) {
        struct range mine = range_of(e, c, owners_rank(e->owners));
        lookup->of_cluster[c] = asked;
        for (int r = 0; r < ranks; ++r) {
            int64_t n = list_rows(rows + asked, &sets[r], mine, e->clusters.first[c] + e->weight[c]->first);
            lookup->leave.offset[r * clusters + c] = asked;
            lookup->leave.count[r * clusters + c] = n;
            asked += n;
        }
    }
    lookup->of_cluster[clusters] = asked;
    lookup->asked = pass_upload(pass, rows, asked);
}

static void plan_arriving(const struct embedding *e, const struct pass *pass, struct lookup *lookup,
                          const struct set *own) {
    int ranks = owners_size(e->owners), clusters = e->clusters.count;
    int32_t *inverse = ARENA_ARRAY(pass->host, int32_t, pass->tokens);
    for (int64_t n = 0; n < pass->tokens; ++n) inverse[n] = (int32_t)members_below(own, pass->ids_host[n]);
    lookup->inverse = pass_upload(pass, inverse, pass->tokens);
    lookup->unique = members_below(own, e->clusters.first[clusters]);
    lookup->arrive = blocks_take(pass, ranks, clusters);
    for (int r = 0; r < ranks; ++r)
        for (int c = 0; c < clusters; ++c) {
            struct range theirs = range_of(e, c, r);
            int64_t first = members_below(own, theirs.first);
            lookup->arrive.offset[r * clusters + c] = first;
            lookup->arrive.count[r * clusters + c] = members_below(own, theirs.end) - first;
        }
}

static struct lookup plan(const struct embedding *e, const struct pass *pass) {
    struct lookup lookup = {0};
    int ranks = owners_size(e->owners);
    int64_t V = e->clusters.first[e->clusters.count];
    struct everyone all = everyone_of(e->owners, pass, pass->ids_host, pass->tokens);
    struct set *sets = ARENA_ARRAY(pass->host, struct set, ranks);
    for (int r = 0; r < ranks; ++r) sets[r] = set_of(pass, V, all.values + r * all.most, all.count[r]);
    plan_leaving(e, pass, &lookup, sets);
    plan_arriving(e, pass, &lookup, &sets[owners_rank(e->owners)]);
    return lookup;
}

/* ---- Rows there and back ---- */

static bool is_direct(const struct embedding *e) { return e->clusters.count == 1 && owners_size(e->owners) == 1; }

/* [unique, d] in the arena: the rows of this rank's different symbols. */
static const real *fetch(const struct embedding *e, const struct pass *pass, const struct lookup *lookup) {
    int64_t d = e->d_model, asked = lookup->of_cluster[e->clusters.count];
    real *rows = ARENA_ARRAY(pass->arena, real, asked * d);
    for (int c = 0; c < e->clusters.count; ++c) {
        int64_t first = lookup->of_cluster[c];
        ops->embedding_forward(rows + first * d, e->weight[c]->data, lookup->asked + first, 1,
                               lookup->of_cluster[c + 1] - first, d);
    }
    if (owners_size(e->owners) == 1) return rows;
    real *own = ARENA_ARRAY(pass->arena, real, lookup->unique * d);
    comm_exchange_rows(e->owners, QUEUE_COMPUTE, own, rows, d * (int64_t)sizeof *rows, &lookup->arrive, &lookup->leave);
    return own;
}

real *embedding_forward(struct embedding *e, const struct pass *pass) {
    int64_t d = e->d_model, N = pass->tokens;
    real *x = ARENA_ARRAY(pass->arena, real, N * d);
    if (is_direct(e)) {
        ops->embedding_forward(x, e->weight[0]->data, pass->ids, sqrt((double)d), N, d);
        return x;
    }
    e->lookup = plan(e, pass);
    struct arena_mark mark = arena_mark(pass->arena);
    ops->embedding_forward(x, fetch(e, pass, &e->lookup), e->lookup.inverse, sqrt((double)d), N, d);
    arena_release(pass->arena, mark);
    return x;
}

void embedding_backward(const struct embedding *e, const struct pass *pass, const real *dx) {
    int64_t d = e->d_model, N = pass->tokens;
    const struct lookup *lookup = &e->lookup;
    if (is_direct(e)) {
        ops->embedding_backward(e->weight[0]->grad, dx, pass->ids, sqrt((double)d), pass->arena, N, e->weight[0]->count,
                                d);
        return;
    }
    struct arena_mark mark = arena_mark(pass->arena);
    real *rows = ARENA_ARRAY(pass->arena, real, lookup->unique * d);
    ops->fill(rows, 0, lookup->unique * d);
    ops->embedding_backward(rows, dx, lookup->inverse, sqrt((double)d), pass->arena, N, lookup->unique, d);
    if (owners_size(e->owners) > 1) {
        real *asked = ARENA_ARRAY(pass->arena, real, lookup->of_cluster[e->clusters.count] * d);
        comm_exchange_rows(e->owners, QUEUE_COMPUTE, asked, rows, d * (int64_t)sizeof *rows, &lookup->leave,
                           &lookup->arrive);
        rows = asked;
    }
    for (int c = 0; c < e->clusters.count; ++c) {
        int64_t first = lookup->of_cluster[c];
        ops->embedding_backward(e->weight[c]->grad, rows + first * d, lookup->asked + first, 1, pass->arena,
                                lookup->of_cluster[c + 1] - first, e->weight[c]->count, d);
    }
    arena_release(pass->arena, mark);
}
