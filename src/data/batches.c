#include "data/batches.h"

#include <stdlib.h>

#include "base/hash.h"
#include "base/log.h"
#include "data/permutation.h"

enum { WINDOW = 64 }; /* batches that are sorted together */

enum status batches_init(struct batches *batches, const struct examples *examples, int64_t rows, int64_t length,
                         uint64_t seed, bool sorted) {
    int64_t room = sorted || examples->count < WINDOW * rows ? examples->count : WINDOW * rows;
    *batches = (struct batches){.examples = examples,
                                .rows = rows,
                                .length = length,
                                .seed = seed,
                                .sorted = sorted,
                                .epoch = -1,
                                .window = -1};
    batches->members = malloc((size_t)(room + !room) * sizeof *batches->members);
    return batches->members ? STATUS_OK : status_fail(STATUS_INTERNAL, "out of memory: batches");
}

void batches_free(struct batches *batches) {
    free(batches->members);
    *batches = (struct batches){0};
}

int64_t batches_per_epoch(const struct batches *batches) {
    return (batches->examples->count + batches->rows - 1) / batches->rows;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Batches [*first, returned) make up a window. All but sorted: the rest that fills no batch is one of its own, so that
 * it is not always the longest texts that come last. */
static int64_t window_of(const struct batches *batches, int64_t number, int64_t *first) {
    int64_t whole = batches->examples->count / batches->rows, all = batches_per_epoch(batches);
    *first = batches->sorted ? 0 : number < whole ? number / WINDOW * WINDOW : number;
    if (batches->sorted) return all;
    return number < whole ? least(*first + WINDOW, whole) : all;
}

static int compare(const void *a, const void *b) {
    const struct batch_member *x = a, *y = b;
    if (x->tokens != y->tokens) return x->tokens < y->tokens ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

static void fill_window(struct batches *batches, int64_t epoch, int64_t first, int64_t end) {
    const struct examples *examples = batches->examples;
    int64_t from = first * batches->rows, n = least(end * batches->rows, examples->count) - from;
    struct permutation order = permutation_of(batches->seed, (uint64_t)epoch, examples->count);
    for (int64_t i = 0; i < n; ++i) {
        int64_t example = batches->sorted ? from + i : permutation_at(&order, from + i);
        int64_t tokens = least(examples->offset[example + 1] - examples->offset[example] + 1, batches->length);
        batches->members[i] = (struct batch_member){tokens, i, example};
    }
    qsort(batches->members, (size_t)n, sizeof *batches->members, compare);
    batches->epoch = epoch;
    batches->window = first;
}

int64_t batches_read(struct batches *batches, int64_t epoch, int64_t number, int64_t *examples) {
    CHECK(epoch >= 0 && number >= 0 && number < batches_per_epoch(batches));
    int64_t first, end = window_of(batches, number, &first), at = number - first;
    if (batches->sorted) epoch = 0;
    if (batches->epoch != epoch || batches->window != first) fill_window(batches, epoch, first, end);
    if (!batches->sorted) {
        uint64_t stream = hash_splitmix64((uint64_t)epoch) + (uint64_t)first;
        struct permutation order = permutation_of(batches->seed, stream, end - first);
        at = permutation_at(&order, at);
    }
    int64_t n = least(batches->rows, batches->examples->count - number * batches->rows);
    for (int64_t i = 0; i < n; ++i) examples[i] = batches->members[at * batches->rows + i].example;
    return n;
}
