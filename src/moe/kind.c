#include "moe/kind.h"

#include <string.h>

#include "base/status.h"

const void *kind_find(const void *const *kinds, int count, const char *key, const char *wanted) {
    char names[256] = "";
    for (int i = 0; i < count; ++i) {
        const char *name = *(const char *const *)kinds[i];
        if (!strcmp(name, wanted)) return kinds[i];
        strncat(names, i ? ", " : "", sizeof names - strlen(names) - 1);
        strncat(names, name, sizeof names - strlen(names) - 1);
    }
    status_fail(STATUS_CONFIG, "%s: expected one of %s, found '%s'", key, names, wanted);
    return NULL;
}
