/* What the tests of labelled texts share. */
#ifndef VQMOE_TESTS_LABELLED_H
#define VQMOE_TESTS_LABELLED_H

#include <stddef.h>
#include <stdint.h>
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

static inline void put_file(const char *path, const char *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) perror(path);
}

/* A member of a tar file that the test writes; size octal, checksum as of USTAR. */
static inline void put_member(FILE *file, const char *name, const char *text) {
    char header[512] = {0}, block[512] = {0};
    unsigned sum = 0;
    size_t size = strlen(text);
    snprintf(header, 100, "%s", name);
    memcpy(header + 100, "0000644", 8);
    snprintf(header + 124, 12, "%011o", (unsigned)size);
    snprintf(header + 136, 12, "%011o", 0);
    memset(header + 148, ' ', 8);
    header[156] = '0';
    memcpy(header + 257, "ustar\00000", 8);
    for (int i = 0; i < 512; ++i) sum += (unsigned char)header[i];
    snprintf(header + 148, 8, "%06o", sum);
    memcpy(block, text, size);
    fwrite(header, 1, sizeof header, file);
    fwrite(block, 1, size ? sizeof block : 0, file);
}

#endif
