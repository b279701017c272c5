/* Every byte of a prepared folder. */
#include <stdio.h>
#include <xxhash.h>

#include "data/manifest.h"

enum { BLOCK = 1 << 16 };

static enum status check_sum(const char *path, const struct text_map *map, uint64_t expected) {
    uint64_t found = XXH3_64bits(map->address, (size_t)map->size);
    if (found == expected) return STATUS_OK;
    return status_fail(STATUS_DATA, "%s: expected checksum %016llx (" MANIFEST_FILE "), found %016llx", path,
                       (unsigned long long)expected, (unsigned long long)found);
}

static enum status check_tokens(const struct text *text, enum split split, const struct text_part *part) {
    static int32_t block[BLOCK];
    for (int64_t at = 0; at < part->symbols; at += BLOCK) {
        int64_t n = part->symbols - at < BLOCK ? part->symbols - at : BLOCK;
        TRY(text_read(text, split, part->first + at, n, block));
    }
    return STATUS_OK;
}

static enum status check_index(const char *path, const struct text_part *part) {
    for (int64_t i = 0; i < part->sentences; ++i)
        if (part->begin[i] >= part->begin[i + 1])
            return status_fail(STATUS_DATA,
                               "%s: sentence %lld: expected a first token above the one before, %lu, "
                               "found %lu",
                               path, (long long)i + 1, (unsigned long)part->begin[i],
                               (unsigned long)part->begin[i + 1]);
    return STATUS_OK;
}

static enum status check_part(const struct text *text, enum split split, const struct text_part *part,
                              const struct manifest_part *known) {
    char index[PART_NAME * 2];
    TRY(check_sum(part->path, &part->maps[0], known->sum));
    TRY(check_tokens(text, split, part));
    if (!part->begin) return STATUS_OK;
    manifest_part_name(index, split, part - text->splits[split].parts, ".idx");
    TRY(check_sum(index, &part->maps[1], known->index));
    return check_index(index, part);
}

enum status manifest_verify(const struct manifest *manifest, const struct text *text, int rank, int ranks) {
    for (int s = 0; s < SPLITS; ++s)
        for (int64_t i = rank; i < manifest->splits[s].n_parts; i += ranks)
            TRY(check_part(text, (enum split)s, &text->splits[s].parts[i], &manifest->splits[s].parts[i]));
    return STATUS_OK;
}
