/* Inside src/config only: the table of keys, and how one value goes from text to struct config and back. */
#ifndef VQMOE_KEYS_H
#define VQMOE_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"

enum { CONFIG_MAX_KEYS = 96, CONFIG_NAME = 64 /* bytes of the longest name, its end included */ };

enum key_type { KEY_TEXT, KEY_ENUM, KEY_BOOL, KEY_INT, KEY_REAL, KEY_FRACTION /* [0, 1) */ };

struct config_key {
    const char *name; /* "section.key", or a bare name */
    enum key_type type;
    size_t offset, size;   /* of the member of struct config */
    const char *value;     /* default, as it would be written in YAML */
    const char *published; /* default under `preset: published`; NULL: the same */
    double min, max;       /* KEY_INT, KEY_REAL */
    const char *names;     /* KEY_ENUM: "first|second", in the order of the enum */
    const char *word;      /* KEY_INT, KEY_REAL: this word (auto, none) stands for word_value; NULL: there is none */
    int64_t word_value;
    const char *help;
};

extern const struct config_key config_keys[];
extern const int config_n_keys;

const struct config_key *key_find(const char *name); /* NULL: unknown */
const struct config_key *key_nearest(const char *name);
const char *key_default(const struct config_key *key, enum preset preset);

/* Sets the key's member; false, and nothing set, where the text is no such value. */
bool key_parse(const struct config_key *key, const char *text, struct config *config);
/* "an integer from 1 to 255" */
void key_expected(const struct config_key *key, char *out, size_t size);
/* The value as key_parse reads it. */
void key_format(const struct config_key *key, const struct config *config, char *out, size_t size);

#endif
