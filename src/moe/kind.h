/* Finding a router or quantizer by its name in the configuration. */
#ifndef VQMOE_KIND_H
#define VQMOE_KIND_H

/* kinds [count]: pointers to structs whose first member is `const char *name`. NULL, and STATUS_CONFIG's message for
 * `key`, naming those there are, where none has the wanted name. */
const void *kind_find(const void *const *kinds, int count, const char *key, const char *wanted);

#endif
