/* What the tests of labelled texts share. */
#ifndef VQMOE_TESTS_LABELLED_H
#define VQMOE_TESTS_LABELLED_H

#include <stdio.h>
#include <string.h>

#include "config/config.h"

static inline struct config labelled_config(enum data_kind kind, const char *train, const char *valid,
                                            const char *test) {
    struct config config = {.data = {.kind = kind}};
    snprintf(config.data.train, CONFIG_TEXT, "%s", train);
    snprintf(config.data.valid, CONFIG_TEXT, "%s", valid);
    snprintf(config.data.test, CONFIG_TEXT, "%s", test);
    return config;
}

#endif
