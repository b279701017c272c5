#include "data/sha256.h"

#include <openssl/evp.h>
#include <stdio.h>

#include "base/log.h"

/* EVP_MD_CTX under a name of ours. */
static EVP_MD_CTX *context(struct sha256 *sum) { return (EVP_MD_CTX *)sum; }

struct sha256 *sha256_new(void) {
    EVP_MD_CTX *made = EVP_MD_CTX_new();
    if (!made || !EVP_DigestInit_ex(made, EVP_sha256(), NULL)) FATAL("out of memory");
    return (struct sha256 *)made;
}

void sha256_add(struct sha256 *sum, const void *bytes, size_t n) {
    if (!EVP_DigestUpdate(context(sum), bytes, n)) FATAL("SHA-256 failed");
}

void sha256_end(struct sha256 *sum, char text[65]) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length;
    if (!EVP_DigestFinal_ex(context(sum), digest, &length) || length != 32) FATAL("SHA-256 failed");
    for (unsigned i = 0; i < length; ++i) snprintf(text + 2 * i, 3, "%02x", digest[i]);
    EVP_MD_CTX_free(context(sum));
}

void sha256_of(const void *bytes, size_t n, char text[65]) {
    struct sha256 *sum = sha256_new();
    sha256_add(sum, bytes, n);
    sha256_end(sum, text);
}
