/* Manifests that anything may have happened to: read in whole, or refused in one line that names the file.
 * Usage: fuzz_manifest SECONDS FOLDER [SEED]: mutates the manifests of the folder; with -DLIBFUZZER a target for it. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "data/manifest.h"

static int failures;

/* What was taken must be what its own text says. */
static void check_taken(const struct manifest *manifest) {
    struct manifest again;
    char *text = manifest_text(manifest);
    if (manifest_parse(&again, text, (int64_t)strlen(text), "again")) {
        printf("taken, but not when written again: %s\n%s\n", status_message(), text);
        failures++;
        status_clear();
    }
    for (int s = 0; s < SPLITS; ++s) failures += again.splits[s].tokens != manifest->splits[s].tokens;
    manifest_free(&again);
    free(text);
}

/* 1 where it was taken. */
static int try_one(const char *bytes, size_t size) {
    struct manifest manifest;
    enum status status = manifest_parse(&manifest, bytes, (int64_t)size, "manifest.json");
    const char *said = status_message();
    if (!status) check_taken(&manifest);
    if (status && (status != STATUS_DATA || strncmp(said, "manifest.json: ", 15) != 0 || strchr(said, '\n'))) {
        printf("status %d: '%s'\n", (int)status, said);
        failures++;
    }
    status_clear();
    manifest_free(&manifest);
    return !status;
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    try_one((const char *)bytes, size);
    if (failures) abort();
    return 0;
}
#else

enum { MOST = 1 << 15, FILES = 16 };

struct bytes {
    size_t size;
    char data[MOST];
};

static struct bytes corpus[FILES];
static size_t n_corpus;
static uint64_t state;

static uint64_t below(uint64_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return n ? (state >> 33) % n : 0;
}

static void load(const char *folder) {
    DIR *entries = opendir(folder);
    if (!entries) FATAL("%s: cannot read", folder);
    for (struct dirent *entry; (entry = readdir(entries)) && n_corpus < FILES;) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (!file) continue;
        corpus[n_corpus].size = fread(corpus[n_corpus].data, 1, MOST / 2, file);
        n_corpus += corpus[n_corpus].size > 0;
        fclose(file);
    }
    closedir(entries);
}

/* Puts a piece of text in the place of `length` bytes. */
static void splice(struct bytes *b, size_t at, size_t length, const char *text, size_t n) {
    if (at + length > b->size) length = b->size - at;
    if (b->size - length + n > MOST) return;
    memmove(b->data + at + n, b->data + at + length, b->size - at - length);
    memcpy(b->data + at, text, n);
    b->size += n - length;
}

static void change(struct bytes *b) {
    static const char *const words[] = {
        "-1",  "0",   "1e300",       "9007199254740993",   "1.5",        "null",  "true",     "\"\"",
        "[]",  "{}",  "\"../../x\"", "\"test-00000.bin\"", "4294967296", "[[[[[", "\"lm1b\"", "\"words\"",
        "256", "NaN", "\\u0000",     "2147483648"};
    size_t at = below(b->size), length = below(12);
    const struct bytes *other = &corpus[below(n_corpus)];
    const char *word = words[below(sizeof words / sizeof *words)];
    if (!b->size) return;
    switch (below(6)) {
    case 0: b->data[at] ^= (char)(1u << below(8)); break;
    case 1: b->data[at] = (char)below(256); break;
    case 2: { /* another value: what stands between two marks */
        while (at < b->size && !strchr(":,[", b->data[at])) ++at;
        for (length = 0, ++at; at + length < b->size && !strchr(",]}", b->data[at + length]);) ++length;
        if (at < b->size) splice(b, at, length, word, strlen(word));
        break;
    }
    case 3: splice(b, at, length, word, strlen(word)); break;
    case 4: splice(b, at, length, other->data + below(other->size - 1), 1 + below(other->size / 8)); break;
    default: splice(b, at, below(200), "", 0);
    }
}

int main(int argc, char **argv) {
    if (argc < 3) FATAL("usage: fuzz_manifest SECONDS FOLDER [SEED]");
    static struct bytes changed;
    double start = clock_seconds(), seconds = atof(argv[1]);
    int64_t files = 0, taken = 0;
    state = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    load(argv[2]);
    if (!n_corpus) FATAL("%s: no manifests", argv[2]);
    for (size_t i = 0; i < n_corpus; ++i)
        if (!try_one(corpus[i].data, corpus[i].size)) FATAL("a whole manifest is refused");
    for (; clock_seconds() - start < seconds && !failures; ++files) {
        changed = corpus[below(n_corpus)];
        for (uint64_t n = 1 + below(4); n > 0; --n) change(&changed);
        taken += try_one(changed.data, changed.size);
    }
    printf("%lld manifests, %lld of them taken; %d wrong\n", (long long)files, (long long)taken, failures);
    return failures || files < 1000;
}
#endif
