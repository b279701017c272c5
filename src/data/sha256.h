/* SHA-256 of files: OpenSSL's home. */
#ifndef VQMOE_SHA256_H
#define VQMOE_SHA256_H

#include <stddef.h>

#include "base/status.h"

struct sha256; /* opaque */

struct sha256 *sha256_new(void); /* never NULL */
void sha256_add(struct sha256 *sum, const void *bytes, size_t n);
/* 64 hexadecimal digits and a 0; frees the sum. */
void sha256_end(struct sha256 *sum, char text[65]);

/* Of memory. */
void sha256_of(const void *bytes, size_t n, char text[65]);

#endif
