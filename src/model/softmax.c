#include "model/softmax.h"

#include <math.h>

#include "base/block.h"

static int64_t room_of(const struct softmax *s, double mib) {
    int64_t widest = 0, ranks = owners_size(s->owners);
    for (int c = 0; c < s->clusters.count; ++c) {
        int64_t rows = block_count(clusters_rows(&s->clusters, c), ranks, 0);
        if (rows > widest) widest = rows;
    }
    double tokens = mib * 0x1p20 / ((double)widest * sizeof(real));
    return tokens < 1 ? 1 : (int64_t)tokens;
}

enum status softmax_init(struct softmax *s, struct params *params, const struct config *config, int64_t V,
                         const struct embedding *embedding) {
    *s = (struct softmax){.d_model = config->model.d_model, .owners = embedding->owners};
    TRY(clusters_init(&s->clusters, config, V));
    if (!config->model.tied)
        clusters_add_weights(&s->clusters, s->weight, params, "softmax", s->owners != NULL, s->d_model);
    for (int c = 0; c < s->clusters.count && config->model.tied; ++c) s->weight[c] = embedding->weight[c];
    clusters_add_biases(&s->clusters, s->bias, params, "softmax", s->owners != NULL);
    s->room = room_of(s, config->model.logits_mib);
    return STATUS_OK;
}

/* ---- Loss and gradient ---- */

/* The tokens of a turn that a cluster scores. */
struct part {
    int64_t n, own_first, own; /* how many; this rank's own are together */
    const int32_t *index;      /* [n] which of the turn's */
    const int32_t *targets;    /* [n] row of the cluster's matrix as it lies here; -1: it lies elsewhere */
};

static struct part part_of(const struct softmax *s, const struct pass *pass, const struct turn *turn, int c) {
    const struct everyone *all = turn->everyone;
    const struct param *weight = s->weight[c];
    struct part part = {0};
    int32_t *index = ARENA_ARRAY(pass->host, int32_t, turn->n), *targets = ARENA_ARRAY(pass->host, int32_t, turn->n);
    for (int r = 0; r < owners_size(s->owners); ++r) {
        const int64_t *symbols = all->values + r * all->most + turn->at;
        if (r == owners_rank(s->owners)) part.own_first = part.n;
        for (int64_t i = 0; i < turn->first[r + 1] - turn->first[r]; ++i) {
            int of = clusters_of(&s->clusters, symbols[i]);
            if (c && of != c) continue;
            int64_t row = c == of ? symbols[i] - s->clusters.first[c] : s->clusters.first[1] + of - 1;
            row -= weight->first;
            index[part.n] = (int32_t)(turn->first[r] + i);
            targets[part.n++] = row >= 0 && row < weight->count ? (int32_t)row : -1;
        }
        if (r == owners_rank(s->owners)) part.own = part.n - part.own_first;
    }
    part.index = c && part.n ? pass_upload(pass, index, part.n) : NULL;
    part.targets = pass_upload(pass, targets, part.n);
    return part;
}

/* logits [n, rows held here], of x [n, d]. */
static real *score(const struct softmax *s, const struct pass *pass, int c, const real *x, int64_t n) {
    real *logits = ARENA_ARRAY(pass->arena, real, n * s->weight[c]->count);
    if (s->weight[c]->count)
        ops->linear_forward(logits, x, s->weight[c]->data, s->bias[c]->data, n, s->weight[c]->count, s->d_model);
    return logits;
}

/* Returns lse [n] over all rows of the cluster; losses of this rank's own tokens follow those there are. */
static const real *measure(struct softmax *s, const struct pass *pass, const struct turn *turn, int c,
                           const struct part *part, const real *logits) {
    const real nothing = (real)-1e30; /* the log of an empty sum */
    int ranks = owners_size(s->owners);
    int64_t n = part->n, rows = s->weight[c]->count;
    real *own = s->losses + s->n_losses;
    s->n_losses += part->own;
    real *losses = ARENA_ARRAY(pass->arena, real, 2 * n), *lse = losses + n;
    if (rows)
        ops->cross_entropy_forward(ranks == 1 ? own : losses, lse, logits, part->targets, n, rows);
    else
        ops->fill(losses, nothing, 2 * n);
    if (ranks == 1) return lse;
    real *parts = ARENA_ARRAY(pass->arena, real, ranks * 2 * n);
    turn_share(turn, pass, parts, losses, 2 * n);
    ops->cross_entropy_join(losses, lse, parts, ranks, n);
    ops->copy(own, losses + part->own_first, part->own);
    return lse;
}

/* dx [n, d] of x [n, d]; weights' and biases' gradients add. */
static void push_back(const struct softmax *s, int c, real *dx, const real *dlogits, const real *x, int64_t n) {
    const struct param *weight = s->weight[c], *bias = s->bias[c];
    if (weight->count)
        ops->linear_backward(dx, false, weight->grad, bias->grad, dlogits, x, weight->data, n, weight->count,
                             s->d_model);
    else
        ops->fill(dx, 0, n * s->d_model);
}

/* x and dx [turn's tokens, d]; the head's dx overwrites, a tail's adds. */
static void cluster_loss(struct softmax *s, const struct pass *pass, const struct turn *turn, int c, real *dx,
                         const real *x) {
    int64_t d = s->d_model;
    struct arena_mark mark = arena_mark(pass->arena);
    struct part part = part_of(s, pass, turn, c);
    real *to = dx;
    if (part.index) {
        real *gathered = ARENA_ARRAY(pass->arena, real, part.n * d);
        ops->embedding_forward(gathered, x, part.index, 1, part.n, d);
        x = gathered;
        to = ARENA_ARRAY(pass->arena, real, part.n * d);
    }
    if (part.n) {
        real *logits = score(s, pass, c, x, part.n);
        const real *lse = measure(s, pass, turn, c, &part, logits);
        if (pass->train) {
            ops->cross_entropy_backward(logits, logits, lse, part.targets, 1 / (double)pass->tokens_global, part.n,
                                        s->weight[c]->count);
            push_back(s, c, to, logits, x, part.n);
            if (part.index) ops->embedding_backward(dx, to, part.index, 1, pass->arena, part.n, turn->n, d);
        }
    }
    arena_release(pass->arena, mark);
}

void softmax_loss(struct softmax *s, const struct pass *pass, const real *hidden, const int32_t *targets) {
    int64_t d = s->d_model, N = pass->tokens;
    struct everyone all = everyone_of(s->owners, pass, targets, N);
    int64_t count = turns_count(&all, s->room);
    s->dhidden = pass->train ? ARENA_ARRAY(pass->arena, real, N * d) : NULL;
    s->losses = ARENA_ARRAY(pass->arena, real, s->clusters.count > 1 ? 2 * N : N);
    s->n_losses = 0;
    for (int64_t i = 0; i < count; ++i) {
        struct turn turn = turn_of(&all, pass, count, i);
        struct arena_mark mark = arena_mark(pass->arena);
        const real *x = turn_gather(&turn, pass, hidden, d);
        real *own = pass->train ? s->dhidden + turn.at * d : NULL,
             *dx = !pass->train || x == hidden + turn.at * d ? own : ARENA_ARRAY(pass->arena, real, turn.n * d);
        for (int c = 0; c < s->clusters.count; ++c) cluster_loss(s, pass, &turn, c, dx, x);
        if (dx != own) turn_sum(&turn, pass, own, dx, d);
        arena_release(pass->arena, mark);
    }
    ops->sum(pass_sum(pass, -1, SUM_TASK), s->losses, s->n_losses);
}

/* ---- Scores ---- */

/* To the host, in the pass's host arena: [own, rows] of a turn, of all rows of the cluster. */
static const real *all_logits(const struct softmax *s, const struct pass *pass, const struct turn *turn, int c,
                              const real *x) {
    int ranks = owners_size(s->owners);
    int64_t rows = clusters_rows(&s->clusters, c), *width = ARENA_ARRAY(pass->host, int64_t, ranks);
    real *logits = score(s, pass, c, x, turn->n), *parts = logits;
    for (int r = 0; r < ranks; ++r) width[r] = block_count(rows, ranks, r);
    if (ranks > 1) turn_columns(turn, pass, parts = ARENA_ARRAY(pass->arena, real, turn->own * rows), logits, width);
    real *out = ARENA_ARRAY(pass->host, real, turn->own * rows), *at = out;
    if (ranks > 1) at = ARENA_ARRAY(pass->host, real, turn->own * rows);
    device->download(at, parts, (size_t)(turn->own * rows) * sizeof *out);
    for (int r = 0; r < ranks && ranks > 1; ++r)
        for (int64_t i = 0, first = block_first(rows, ranks, r); i < turn->own; ++i, at += width[r])
            for (int64_t j = 0; j < width[r]; ++j) out[i * rows + first + j] = at[j];
    return out;
}

static double log_sum(const real *logits, int64_t n) {
    double top = logits[0], sum = 0;
    for (int64_t i = 1; i < n; ++i) top = fmax(top, logits[i]);
    for (int64_t i = 0; i < n; ++i) sum += exp(logits[i] - top);
    return top + log(sum);
}

/* out [own, V]: logits of full softmax as they are, else logs of probabilities. logits [clusters] of the turn. */
static void write_scores(const struct softmax *s, real *out, const real *const *logits, int64_t own) {
    const struct clusters *clusters = &s->clusters;
    int64_t V = clusters->first[clusters->count], head = clusters_rows(clusters, 0);
    for (int64_t i = 0; i < own; ++i) {
        double head_lse = clusters->count > 1 ? log_sum(logits[0] + i * head, head) : 0;
        for (int c = 0; c < clusters->count; ++c) {
            int64_t first = clusters->first[c], n = clusters->first[c + 1] - first;
            const real *row = logits[c] + i * (c ? n : head);
            double less = head_lse;
            if (c) less += log_sum(row, n) - logits[0][i * head + clusters->first[1] + c - 1];
            for (int64_t j = 0; j < n; ++j) out[i * V + first + j] = (real)(row[j] - less);
        }
    }
}

void softmax_scores(const struct softmax *s, const struct pass *pass, real *out, const real *hidden, int64_t n) {
    struct everyone all = everyone_of(s->owners, pass, NULL, n);
    int64_t count = turns_count(&all, s->room), V = s->clusters.first[s->clusters.count];
    for (int64_t i = 0; i < count; ++i) {
        const real *logits[CLUSTERS];
        struct arena_mark mark = arena_mark(pass->arena), host_mark = arena_mark(pass->host);
        struct turn turn = turn_of(&all, pass, count, i);
        const real *x = turn_gather(&turn, pass, hidden, s->d_model);
        for (int c = 0; c < s->clusters.count; ++c) logits[c] = all_logits(s, pass, &turn, c, x);
        write_scores(s, out + turn.at * V, logits, turn.own);
        arena_release(pass->host, host_mark);
        arena_release(pass->arena, mark);
    }
}
