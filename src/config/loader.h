/* Inside src/config only: how sources put keys into a configuration, remembering where each came from. */
#ifndef VQMOE_LOADER_H
#define VQMOE_LOADER_H

#include "config/keys.h"

/* Where a value stands. No source: a default. */
struct origin {
    const char *source; /* file, or "key=value" of --set */
    enum { ORIGIN_FILE, ORIGIN_SET } kind;
    int line; /* 0: unknown */
    int nth;  /* of the source: a key set twice in one is an error */
};

struct loader {
    struct config config;
    struct origin origins[CONFIG_MAX_KEYS];
    int n_sources;
};

/* One line: where, key, message. `where` may be NULL, and name as well. */
enum status loader_fail(const struct origin *where, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Sets a key of the table, checked. */
enum status loader_set(struct loader *loader, const struct origin *where, const char *name, const char *text);

enum status loader_read_yaml(struct loader *loader, const char *path);
/* sections: names, ended by NULL, of those to take; NULL: all keys. */
enum status loader_read_json(struct loader *loader, const char *json, const char *source, const char *const *sections);

const char *loader_yaml_library(void); /* "0.2.5" */
const char *loader_json_library(void);

/* What no key can check alone; also sets what depends on other keys. All keys are set when it is called. */
enum status loader_check(struct loader *loader);

#endif
