/* The corpus, each file as it is and changed some hundred times, the same changes always.
 * Usage: fuzz_main CHANGES FILE... */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "fuzz_examples.h"

enum { MOST = 1 << 14 };
static uint64_t state = 1;

static uint64_t below(uint64_t limit) {
    state = hash_splitmix64(state);
    return state % limit;
}

/* Returns the new size. */
static size_t change(uint8_t *bytes, size_t size) {
    static const char letters[] = "\"\"\n\r\t,()\\ 0415\xEF\xBB\xBF/-aR\xC3\xA9";
    if (size < 2) return size;
    size_t at = 1 + below(size - 1), length = 1 + below(16);
    if (at + length > size) length = size - at;
    switch (below(6)) {
    case 0: bytes[at] ^= (uint8_t)(1u << below(8)); break;
    case 1: bytes[at] = (uint8_t)letters[below(sizeof letters)]; break; /* its final 0 too */
    case 2: /* out */ memmove(bytes + at, bytes + at + length, size - at - length); return size - length;
    case 3: /* twice */
        if (size + length > MOST) return size;
        memmove(bytes + at + length, bytes + at, size - at);
        return size + length;
    case 4: memset(bytes + at, letters[below(sizeof letters)], length); break;
    default: return below(4) ? size : at; /* cut */
    }
    return size;
}

int main(int argc, char **argv) {
    if (argc < 3) FATAL("usage: fuzz_main CHANGES FILE...");
    static uint8_t whole[MOST], changed[MOST];
    int64_t runs = 0, read_well = 0;
    log_init(1); /* headers are not said */
    for (int f = 2; f < argc; ++f) {
        FILE *file = fopen(argv[f], "rb");
        size_t size = file ? fread(whole, 1, MOST, file) : 0;
        if (!file || size == 0 || size == MOST) FATAL("%s: expected a small file", argv[f]);
        fclose(file);
        for (int i = 0; i <= atoi(argv[1]); ++i, ++runs) {
            size_t now = size;
            memcpy(changed, whole, size);
            for (uint64_t n = i ? 1 + below(4) : 0; n > 0; --n) now = change(changed, now);
            bool good = fuzz_examples(changed, now);
            if (i == 0 && !good) FATAL("%s: expected a good file in the corpus", argv[f]);
            read_well += good;
        }
    }
    printf("%lld inputs, %lld of them read\n", (long long)runs, (long long)read_well);
    return 0;
}
