#include "nn/head.h"

#include "nn/ragged.h"

void head_init(struct head *head, struct params *params, const struct config *config, int64_t classes) {
    int64_t d = config->model.d_model, dense[] = {d, d}, out[] = {classes, d};
    *head = (struct head){.d_model = d, .classes = classes};
    if (config->classifier.head == HEAD_MLP) {
        head->dense_weight = params_add(params, -1, "head.dense.weight", PLACE_REPLICATED, INITIAL_WEIGHT, 2, dense);
        head->dense_bias = params_add(params, -1, "head.dense.bias", PLACE_REPLICATED, INITIAL_ZERO, 1, dense);
    }
    head->weight = params_add(params, -1, "head.output.weight", PLACE_REPLICATED, INITIAL_WEIGHT, 2, out);
    head->bias = params_add(params, -1, "head.output.bias", PLACE_REPLICATED, INITIAL_ZERO, 1, out);
}

/* Its own backward. Rows are those of the global batch. */
static void drop(const struct head *head, const struct pass *pass, real *out, const real *in) {
    ops->dropout(out, NULL, in, pass_dropout(pass, RNG_HEAD, 0, 0), pass->row_first, pass->rows, head->d_model);
}

void head_forward(struct head *head, const struct pass *pass, const real *hidden) {
    int64_t B = pass->rows, d = head->d_model;
    real *last = ARENA_ARRAY(pass->arena, real, B * d);
    ops->gather_rows(last, hidden, pass->ragged->last, 1, B, d);
    head->last = head->in = last;
    if (head->dense_weight) {
        real *dropped = ARENA_ARRAY(pass->arena, real, B * d);
        head->bent = ARENA_ARRAY(pass->arena, real, B * d);
        ops->linear_forward(head->bent, last, head->dense_weight->data, head->dense_bias->data, B, d, d);
        ops->tanh_forward(head->bent, head->bent, B * d);
        drop(head, pass, dropped, head->bent);
        head->in = dropped;
    }
    head->logits = ARENA_ARRAY(pass->arena, real, B * head->classes);
    ops->linear_forward(head->logits, head->in, head->weight->data, head->bias->data, B, head->classes, d);
}

/* out [B, D] = rows of in times their shares */
static void share(const struct head *head, real *out, const real *in, int64_t B, int64_t D) {
    ops->combine_forward(out, false, in, head->rows, head->shares, B, 1, D);
}

void head_loss(struct head *head, const struct pass *pass, const int32_t *labels, const real *shares) {
    int64_t B = pass->rows, *rows = ARENA_ARRAY(pass->arena, int64_t, B);
    real *losses = ARENA_ARRAY(pass->arena, real, B), *parts = ARENA_ARRAY(pass->arena, real, B);
    head->labels = labels;
    head->shares = shares;
    head->rows = rows;
    head->lse = ARENA_ARRAY(pass->arena, real, B);
    ops->row_numbers(rows, NULL, 1, 0, B);
    ops->cross_entropy_forward(losses, head->lse, head->logits, labels, B, head->classes);
    share(head, parts, losses, B, 1);
    ops->sum(pass_sum(pass, -1, SUM_TASK), parts, B);
}

void head_backward(struct head *head, const struct pass *pass, real *dhidden) {
    int64_t B = pass->rows, d = head->d_model, C = head->classes;
    struct arena_mark mark = arena_mark(pass->arena);
    real *plain = ARENA_ARRAY(pass->arena, real, B * C), *dlogits = ARENA_ARRAY(pass->arena, real, B * C);
    real *din = ARENA_ARRAY(pass->arena, real, B * d), *dlast = ARENA_ARRAY(pass->arena, real, B * d);
    ops->cross_entropy_backward(plain, head->logits, head->lse, head->labels, 1, B, C);
    share(head, dlogits, plain, B, C);
    ops->linear_backward(din, false, head->weight->grad, head->bias->grad, dlogits, head->in, head->weight->data, B, C,
                         d);
    if (head->dense_weight) {
        drop(head, pass, din, din);
        ops->tanh_backward(din, din, head->bent, B * d);
        ops->linear_backward(dlast, false, head->dense_weight->grad, head->dense_bias->grad, din, head->last,
                             head->dense_weight->data, B, d, d);
        din = dlast;
    }
    ops->fill(dhidden, 0, pass->tokens * d);
    ops->scatter_rows(dhidden, din, pass->ragged->last, 1, B, d);
    arena_release(pass->arena, mark);
}
