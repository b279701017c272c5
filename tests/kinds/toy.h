/* A tiny model of one router and one quantizer, its steps, and the routes they took. */
#ifndef VQMOE_TESTS_TOY_H
#define VQMOE_TESTS_TOY_H

#include "train/step_file.h"

enum { B = 7, T = 6, V = 11, LAYERS = 2, STEPS = 12, SETTINGS = 40 };

struct variant {
    char name[96];
    char settings[SETTINGS][64];
    int n;
};

struct toy {
    struct config config;
    struct model model;
    struct step step;
    struct routes routes;
    int32_t *tokens, *targets;
};

/* Of all tokens of the batch, by the process alone. */
struct history {
    int32_t *choices[STEPS][ROUTE_PATHS][LAYERS];
};

struct variant variant_of(const char *name);
/* One more setting, "key=value". */
void variant_set(struct variant *variant, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* On this group of ranks. A configuration's error is returned, with nothing left to free. */
enum status toy_init(struct toy *toy, const struct variant *variant, struct comm *comm);
/* Initial values, large enough that nothing is nearly linear. */
void toy_start(struct toy *toy);
void toy_free(struct toy *toy);
/* One step's gradients; its routes are kept in the history, or replayed from there. */
void toy_gradients(struct toy *toy, struct history *history, int64_t number, bool keep);
/* The whole step; returns its loss. */
double toy_step(struct toy *toy, struct history *history, int64_t number, bool keep);
void history_free(struct history *history);

/* -1 .. 1, a function of its place. */
double noise(uint64_t a, uint64_t b);
void *take_zeroed(size_t bytes);

#endif
