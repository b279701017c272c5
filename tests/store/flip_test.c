/* One bit of a checkpoint, anywhere: verifying says so, and so does loading, naming the file. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../kinds/toy.h"
#include "base/hash.h"
#include "base/log.h"
#include "train/checkpoint.h"

#ifdef __SANITIZE_ADDRESS__
enum { FLIPS = 20 }; /* slow */
#else
enum { FLIPS = 100 };
#endif

static const char *const path = "flip.h5";
static int failures;
static struct text text = {.vocabulary = {.size = V, .bytes = true}, .splits[SPLIT_TRAIN].path = "symbols"};

static enum status load(struct toy *toy) {
    struct progress progress = {0};
    return checkpoint_resume(path, &toy->step, &(struct diagnostics){0},
                             &(struct legend){.vocabulary = &text.vocabulary}, &progress);
}

static enum status verify(void) {
    struct archive *archive;
    int64_t bytes;
    enum status status = archive_open(&archive, path, NULL);
    if (!status) status = archive_verify(archive, &bytes);
    archive_close(archive);
    return status;
}

static void expect(enum status found, enum status expected, const char *what, int64_t at) {
    bool told = !expected || (!strncmp(status_message(), path, strlen(path)) && !strchr(status_message(), '\n'));
    if (found != expected || !told) {
        printf("byte %lld, %s: expected status %d, found %d: %s\n", (long long)at, what, (int)expected, (int)found,
               status_message());
        failures++;
    }
    status_clear();
}

static void flip(int fd, int64_t at, int bit) {
    unsigned char byte;
    if (pread(fd, &byte, 1, at) != 1) abort();
    byte ^= (unsigned char)(1u << bit);
    if (pwrite(fd, &byte, 1, at) != 1) abort();
}

enum part { DESCRIPTION, VALUES, TABLE, FLIP_PARTS };

static enum part part_of(const struct h5_contents *contents, int64_t at) {
    for (int i = 0; i < contents->n_arrays; ++i) {
        const struct h5_array *a = &contents->arrays[i];
        if (a->bytes && at >= a->offset && at < a->offset + a->bytes)
            return strcmp(a->name, "/checksums") ? VALUES : TABLE;
    }
    return DESCRIPTION;
}

static void flip_in(enum part part, const struct h5_contents *contents, struct toy *toy) {
    int fd = open(path, O_RDWR);
    uint64_t random = (uint64_t)part;
    for (int done = 0; done < FLIPS;) {
        random = hash_splitmix64(random);
        int64_t at = (int64_t)(random % (uint64_t)contents->bytes);
        if (part_of(contents, at) != part) continue;
        int bit = (int)(random >> 61);
        flip(fd, at, bit);
        expect(verify(), STATUS_CHECKPOINT, "verify", at);
        expect(load(toy), STATUS_CHECKPOINT, "load", at);
        flip(fd, at, bit);
        done++;
    }
    close(fd);
}

/* Of another version, and of this one without checksums. */
static void other_files(struct toy *toy) {
    const char *const older = "flip.h5: expected format_version 2, found 1: written by an older vqmoe",
                      *const newer = "flip.h5: expected format_version 2, found 3: written by a newer vqmoe",
                      *const bare = "flip.h5: /checksums: expected an array, found none";
    for (int64_t version = 1; version <= 3; ++version) {
        struct h5_attribute attribute = {.name = "format_version", .kind = H5_INTEGER, .integer = version};
        struct h5_contents contents = {.attributes = &attribute, .n_attributes = 1};
        if (h5_create(path, &contents)) FATAL("%s", status_message());
        enum status status = load(toy);
        const char *expected = version == 1 ? older : version == 2 ? bare : newer;
        if (status == STATUS_CHECKPOINT && !strcmp(status_message(), expected)) {
            status_clear();
            continue;
        }
        printf("version %lld: status %d: %s\n", (long long)version, (int)status, status_message());
        failures++;
        status_clear();
    }
}

int main(void) {
    struct variant variant = variant_of("flip");
    struct comm *world = comm_self_new();
    struct toy toy;
    struct history history = {0};
    struct archive *archive;
    variant_set(&variant, "quantizer.kind=ema"); /* has state */
    for (int i = 0; i < V; ++i) text.vocabulary.byte_of[i] = (uint8_t)('a' + i);
    ops_init_cpu(1, PRECISION_FP32);
    if (toy_init(&toy, &variant, world)) FATAL("%s", status_message());
    toy_start(&toy);
    for (int number = 0; number < 2; ++number) toy_step(&toy, &history, number, true);
    expect(checkpoint_write(path, &toy.step, &(struct diagnostics){0}, &(struct legend){.vocabulary = &text.vocabulary},
                            &(struct progress){.step = 2, .segment = 2, .best_valid = INFINITY, .validated = true}),
           STATUS_OK, "write", -1);
    if (archive_open(&archive, path, NULL)) FATAL("%s", status_message());
    for (int part = 0; part < FLIP_PARTS; ++part) flip_in((enum part)part, archive_contents(archive), &toy);
    archive_close(archive);
    expect(verify(), STATUS_OK, "verify, whole again", -1);
    expect(load(&toy), STATUS_OK, "load, whole again", -1);
    other_files(&toy);
    history_free(&history);
    toy_free(&toy);
    comm_free(world);
    return failures != 0;
}
