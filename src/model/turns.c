#include "model/turns.h"

#include <string.h>

struct everyone everyone_of(struct comm *owners, const struct pass *pass, const int32_t *values, int64_t n) {
    int ranks = owners_size(owners);
    struct everyone all = {owners, ARENA_ARRAY(pass->host, int64_t, ranks), n, NULL};
    all.count[0] = n;
    if (ranks > 1) comm_allgather(owners, all.count, &n, 1);
    for (int r = 0; r < ranks; ++r)
        if (all.count[r] > all.most) all.most = all.count[r];
    if (!values) return all;
    int64_t *own = ARENA_ARRAY(pass->host, int64_t, all.most), *gathered = own;
    for (int64_t i = 0; i < all.most; ++i) own[i] = i < n ? values[i] : 0;
    if (ranks > 1) {
        gathered = ARENA_ARRAY(pass->host, int64_t, ranks * all.most);
        comm_allgather(owners, gathered, own, all.most);
    }
    all.values = gathered;
    return all;
}

int64_t turns_count(const struct everyone *everyone, int64_t room) {
    int64_t share = room / owners_size(everyone->owners);
    if (share < 1) share = 1;
    return (everyone->most + share - 1) / share;
}

struct turn turn_of(const struct everyone *everyone, const struct pass *pass, int64_t count, int64_t i) {
    int ranks = owners_size(everyone->owners), rank = owners_rank(everyone->owners);
    int64_t share = (everyone->most + count - 1) / count, at = i * share;
    struct turn turn = {everyone, at, 0, 0, ARENA_ARRAY(pass->host, int64_t, ranks + 1)};
    for (int r = 0; r < ranks; ++r) {
        int64_t left = everyone->count[r] - at, rows = left < 0 ? 0 : left < share ? left : share;
        turn.first[r] = turn.n;
        turn.n += rows;
        if (r == rank) turn.own = rows;
    }
    turn.first[ranks] = turn.n;
    return turn;
}

/* One block for each rank. */
static struct comm_blocks blocks_take(const struct pass *pass, int ranks) {
    struct comm_blocks blocks = {ARENA_ARRAY(pass->host, int, ranks), ARENA_ARRAY(pass->host, int64_t, ranks),
                                 ARENA_ARRAY(pass->host, int64_t, ranks)};
    for (int r = 0; r < ranks; ++r) blocks.per_peer[r] = 1;
    return blocks;
}

const real *turn_gather(const struct turn *turn, const struct pass *pass, const real *rows, int64_t d) {
    struct comm *owners = turn->everyone->owners;
    int ranks = owners_size(owners);
    if (ranks == 1) return rows + turn->at * d;
    real *out = ARENA_ARRAY(pass->arena, real, turn->n * d);
    struct comm_blocks send = blocks_take(pass, ranks), receive = blocks_take(pass, ranks);
    for (int r = 0; r < ranks; ++r) {
        send.offset[r] = turn->at, send.count[r] = turn->own;
        receive.offset[r] = turn->first[r], receive.count[r] = turn->first[r + 1] - turn->first[r];
    }
    comm_exchange_rows(owners, QUEUE_COMPUTE, out, rows, d * (int64_t)sizeof *out, &receive, &send);
    return out;
}

void turn_sum(const struct turn *turn, const struct pass *pass, real *rows, const real *parts, int64_t d) {
    struct comm *owners = turn->everyone->owners;
    int ranks = owners_size(owners);
    struct arena_mark mark = arena_mark(pass->arena);
    real *all = ARENA_ARRAY(pass->arena, real, ranks * turn->own * d);
    struct comm_blocks send = blocks_take(pass, ranks), receive = blocks_take(pass, ranks);
    for (int r = 0; r < ranks; ++r) {
        send.offset[r] = turn->first[r], send.count[r] = turn->first[r + 1] - turn->first[r];
        receive.offset[r] = r * turn->own, receive.count[r] = turn->own;
    }
    comm_exchange_rows(owners, QUEUE_COMPUTE, all, parts, d * (int64_t)sizeof *all, &receive, &send);
    ops->copy(rows, all, turn->own * d);
    for (int r = 1; r < ranks; ++r) ops->add(rows, rows, all + r * turn->own * d, turn->own * d);
    arena_release(pass->arena, mark);
}

void turn_share(const struct turn *turn, const struct pass *pass, real *out, const real *values, int64_t n) {
    struct comm *owners = turn->everyone->owners;
    int ranks = owners_size(owners);
    struct comm_blocks send = blocks_take(pass, ranks), receive = blocks_take(pass, ranks);
    for (int r = 0; r < ranks; ++r) {
        send.offset[r] = 0, receive.offset[r] = r * n;
        send.count[r] = receive.count[r] = n;
    }
    comm_exchange_rows(owners, QUEUE_COMPUTE, out, values, (int64_t)sizeof *out, &receive, &send);
}

void turn_columns(const struct turn *turn, const struct pass *pass, real *out, const real *here, const int64_t *width) {
    struct comm *owners = turn->everyone->owners;
    int ranks = owners_size(owners);
    int64_t next = 0, own = width[owners_rank(owners)];
    struct comm_blocks send = blocks_take(pass, ranks), receive = blocks_take(pass, ranks);
    for (int r = 0; r < ranks; ++r) {
        send.offset[r] = turn->first[r] * own, send.count[r] = (turn->first[r + 1] - turn->first[r]) * own;
        receive.offset[r] = next, receive.count[r] = turn->own * width[r];
        next += receive.count[r];
    }
    comm_exchange_rows(owners, QUEUE_COMPUTE, out, here, (int64_t)sizeof *out, &receive, &send);
}
