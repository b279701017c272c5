#include "data/manifest.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static const int64_t most_integer = (int64_t)1 << 53; /* that JSON's numbers hold exactly */
enum { MOST_FILE = 1 << 28, MOST_PARTS = 100000, MOST_SOURCES = 100000 };

const char *const manifest_kinds[] = {"enwik8", "text8", "text", "words", "lm1b"};
static const char *const newlines_names[] = {[NEWLINES_DROP] = "drop", [NEWLINES_KEEP] = "keep"};
enum { KINDS = sizeof manifest_kinds / sizeof *manifest_kinds };

int manifest_width(int64_t V) { return V <= 1 << 8 ? 1 : V <= 1 << 16 ? 2 : 4; }

void manifest_part_name(char name[PART_NAME], enum split split, int64_t part, const char *ending) {
    snprintf(name, PART_NAME, "%s-%05lld%s", split_names[split], (long long)part, ending);
}

void manifest_free(struct manifest *manifest) {
    free(manifest->sources);
    for (int s = 0; s < SPLITS; ++s) free(manifest->splits[s].parts);
    *manifest = (struct manifest){0};
}

/* ---- Sums ---- */

static bool add(int64_t *sum, int64_t value) {
    *sum += value; /* both below 2^53 */
    return *sum <= most_integer;
}

static bool add_part(struct manifest_split *split, const struct manifest_part *part) {
    return add(&split->tokens, part->tokens) && add(&split->sentences, part->sentences) &&
           add(&split->unknown, part->unknown) && add(&split->bytes, part->bytes);
}

enum status manifest_add_up(struct manifest *m, const char *path) {
    for (int s = 0; s < SPLITS; ++s) {
        struct manifest_split *split = &m->splits[s];
        split->tokens = split->sentences = split->unknown = split->bytes = 0;
        for (int64_t i = 0; i < split->n_parts; ++i)
            if (!add_part(split, &split->parts[i]))
                return status_fail(STATUS_DATA, "%s: splits.%s: expected at most 2^53 tokens, found more", path,
                                   split_names[s]);
        if (m->kind == DATA_LM1B && split->n_parts) split->tokens -= split->n_parts - 1;
    }
    return STATUS_OK;
}

/* ---- Reading ---- */

/* Where in the file we are, for messages. */
struct place {
    const char *path; /* of the file */
    char key[128];
};

static enum status wrong(const struct place *place, const char *name, const char *expected, const cJSON *found) {
    char *text = found ? cJSON_PrintUnformatted(found) : NULL;
    enum status status =
        status_fail(STATUS_DATA, "%s: %s%s: expected %s, found %.80s", place->path, place->key, name, expected,
                    text    ? text
                    : found ? "something else"
                            : "none");
    cJSON_free(text);
    return status;
}

static enum status get_integer(const struct place *place, const cJSON *object, const char *name, int64_t least,
                               int64_t most, int64_t *value) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    char expected[80];
    double number = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)least, (long long)most);
    if (!(number >= (double)least && number <= (double)most) || number != floor(number))
        return wrong(place, name, expected, item);
    *value = (int64_t)number;
    return STATUS_OK;
}

static enum status get_text(const struct place *place, const cJSON *object, const char *name, char *value,
                            size_t size) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (!cJSON_IsString(item) || strlen(item->valuestring) >= size) return wrong(place, name, "a text", item);
    snprintf(value, size, "%s", item->valuestring);
    return STATUS_OK;
}

/* Hexadecimal digits, as many as the room less one. */
static enum status get_digits(const struct place *place, const cJSON *object, const char *name, char *value,
                              size_t size) {
    TRY(get_text(place, object, name, value, size));
    if (strlen(value) == size - 1 && strspn(value, "0123456789abcdef") == size - 1) return STATUS_OK;
    return wrong(place, name, "hexadecimal digits", cJSON_GetObjectItemCaseSensitive(object, name));
}

static enum status get_sum(const struct place *place, const cJSON *object, const char *name, uint64_t *value) {
    char digits[17];
    TRY(get_digits(place, object, name, digits, sizeof digits));
    *value = strtoull(digits, NULL, 16);
    return STATUS_OK;
}

static enum status get_name(const struct place *place, const cJSON *object, const char *name, const char *const *names,
                            int n, int *value) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    for (*value = 0; *value < n; ++*value)
        if (cJSON_IsString(item) && !strcmp(item->valuestring, names[*value])) return STATUS_OK;
    return wrong(place, name, "another word", item);
}

/* A list of at most `most`; *count of them. */
static enum status get_list(const struct place *place, const cJSON *object, const char *name, int64_t least,
                            int64_t most, const cJSON **list, int64_t *count) {
    *list = cJSON_GetObjectItemCaseSensitive(object, name);
    *count = cJSON_IsArray(*list) ? cJSON_GetArraySize(*list) : -1;
    return *count < least || *count > most ? wrong(place, name, "a list", *list) : STATUS_OK;
}

static void *zeros(int64_t count, size_t size) {
    void *memory = calloc((size_t)count + 1, size);
    if (!memory) FATAL("out of memory");
    return memory;
}

static enum status parse_sources(struct manifest *m, const cJSON *root, struct place *place) {
    const cJSON *list, *item;
    int64_t count;
    TRY(get_list(place, root, "sources", 1, MOST_SOURCES, &list, &count));
    m->sources = zeros(count, sizeof *m->sources);
    cJSON_ArrayForEach(item, list) {
        struct manifest_source *source = &m->sources[m->n_sources];
        snprintf(place->key, sizeof place->key, "sources[%lld].", (long long)m->n_sources);
        TRY(get_text(place, item, "name", source->name, sizeof source->name));
        TRY(get_integer(place, item, "bytes", 0, most_integer, &source->bytes));
        TRY(get_integer(place, item, "modified", -most_integer, most_integer, &source->modified));
        TRY(get_digits(place, item, "sha256", source->sha256, sizeof source->sha256));
        m->n_sources++;
    }
    place->key[0] = '\0';
    return STATUS_OK;
}

static enum status parse_bytes(struct manifest *m, const cJSON *object, const struct place *place) {
    const cJSON *list, *item;
    int64_t before = -1;
    TRY(get_list(place, object, "bytes", 1, 256, &list, &m->V));
    m->V = 0;
    cJSON_ArrayForEach(item, list) {
        double byte = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(byte > (double)before && byte < 256) || byte != floor(byte))
            return wrong(place, "bytes", "bytes in rising order", item);
        before = (int64_t)byte;
        m->byte_of[m->V++] = (uint8_t)byte;
    }
    return STATUS_OK;
}

static enum status parse_vocabulary(struct manifest *m, const cJSON *root, struct place *place) {
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(root, "vocabulary");
    if (!cJSON_IsObject(object)) return wrong(place, "vocabulary", "an object", object);
    snprintf(place->key, sizeof place->key, "vocabulary.");
    m->bytes = m->kind <= DATA_TEXT;
    if (m->bytes) {
        TRY(parse_bytes(m, object, place));
    } else {
        TRY(get_integer(place, object, "words", 1, INT32_MAX - 1, &m->V));
        TRY(get_integer(place, object, "file_bytes", 1, most_integer, &m->vocabulary_bytes));
        TRY(get_digits(place, object, "sha256", m->vocabulary_sha256, sizeof m->vocabulary_sha256));
    }
    place->key[0] = '\0';
    return STATUS_OK;
}

/* The name is not asked for, but checked: files are where we would have put them. */
static enum status parse_part(const struct manifest *m, const cJSON *item, enum split split, int64_t number,
                              struct manifest_part *part, const struct place *place) {
    char name[PART_NAME], found[MANIFEST_NAME];
    int64_t most = UINT32_MAX; /* indices of sentences */
    manifest_part_name(name, split, number, ".bin");
    TRY(get_text(place, item, "file", found, sizeof found));
    if (strcmp(found, name) != 0) return wrong(place, "file", name, cJSON_GetObjectItemCaseSensitive(item, "file"));
    TRY(get_integer(place, item, "tokens", m->kind == DATA_LM1B, most, &part->tokens));
    TRY(get_integer(place, item, "sentences", 0, m->kind == DATA_LM1B ? part->tokens - 1 : 0, &part->sentences));
    TRY(get_integer(place, item, "unknown", 0, m->bytes ? 0 : part->tokens, &part->unknown));
    TRY(get_integer(place, item, "bytes", 0, most_integer, &part->bytes));
    TRY(get_sum(place, item, "xxh3", &part->sum));
    return m->kind == DATA_LM1B ? get_sum(place, item, "index_xxh3", &part->index) : STATUS_OK;
}

static enum status parse_split(struct manifest *m, const cJSON *splits, enum split s, struct place *place) {
    struct manifest_split *split = &m->splits[s];
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(splits, split_names[s]), *list, *item;
    int64_t count;
    snprintf(place->key, sizeof place->key, "splits.");
    if (!object && s == SPLIT_TEST) return STATUS_OK;
    if (!cJSON_IsObject(object)) return wrong(place, split_names[s], "an object", object);
    snprintf(place->key, sizeof place->key, "splits.%s.", split_names[s]);
    TRY(get_list(place, object, "parts", 1, MOST_PARTS, &list, &count));
    split->parts = zeros(count, sizeof *split->parts);
    cJSON_ArrayForEach(item, list) {
        snprintf(place->key, sizeof place->key, "splits.%s.parts[%lld].", split_names[s], (long long)split->n_parts);
        TRY(parse_part(m, item, s, split->n_parts, &split->parts[split->n_parts], place));
        split->n_parts++;
    }
    return STATUS_OK;
}

/* What the parts add up to is what the file says of the split. */
static enum status check_sums(const struct manifest *m, const cJSON *splits, struct place *place) {
    for (int s = 0; s < SPLITS; ++s) {
        const struct manifest_split *split = &m->splits[s];
        const cJSON *object = cJSON_GetObjectItemCaseSensitive(splits, split_names[s]);
        const struct {
            const char *name;
            int64_t sum;
        } sums[] = {{"tokens", split->tokens},
                    {"sentences", split->sentences},
                    {"unknown", split->unknown},
                    {"bytes", split->bytes}};
        snprintf(place->key, sizeof place->key, "splits.%s.", split_names[s]);
        for (size_t i = 0; i < sizeof sums / sizeof *sums && split->n_parts; ++i) {
            int64_t value;
            TRY(get_integer(place, object, sums[i].name, 0, most_integer, &value));
            if (value != sums[i].sum)
                return status_fail(STATUS_DATA, "%s: %s%s: expected the sum over its parts, %lld, found %lld",
                                   place->path, place->key, sums[i].name, (long long)sums[i].sum, (long long)value);
        }
    }
    return STATUS_OK;
}

static enum status parse(struct manifest *m, const cJSON *root, struct place *place) {
    int64_t version;
    int kind, newlines;
    const cJSON *splits = cJSON_GetObjectItemCaseSensitive(root, "splits");
    TRY(get_integer(place, root, "format_version", MANIFEST_VERSION, MANIFEST_VERSION, &version));
    TRY(get_name(place, root, "kind", manifest_kinds, KINDS, &kind));
    TRY(get_name(place, root, "newlines", newlines_names, 2, &newlines));
    TRY(get_integer(place, root, "min_count", 0, most_integer, &m->min_count));
    TRY(get_text(place, root, "written_by", m->tool, sizeof m->tool));
    m->kind = (enum data_kind)kind;
    m->newlines = (enum newlines)newlines;
    TRY(parse_sources(m, root, place));
    TRY(parse_vocabulary(m, root, place));
    for (int s = 0; s < SPLITS; ++s) TRY(parse_split(m, splits, (enum split)s, place));
    TRY(manifest_add_up(m, place->path));
    return check_sums(m, splits, place);
}

enum status manifest_parse(struct manifest *manifest, const char *json, int64_t length, const char *path) {
    struct place place = {.path = path};
    *manifest = (struct manifest){0};
    cJSON *root = cJSON_ParseWithLength(json, (size_t)length);
    enum status status = cJSON_IsObject(root)
                             ? parse(manifest, root, &place)
                             : status_fail(STATUS_DATA, "%s: expected a JSON object, found something else", path);
    cJSON_Delete(root);
    return status;
}

static enum status parse_file(struct manifest *manifest, FILE *file, const char *path) {
    char *json = NULL;
    size_t length = 0;
    FILE *copy = open_memstream(&json, &length);
    if (!copy) FATAL("out of memory");
    for (int c; (c = getc(file)) != EOF && length < MOST_FILE;) putc(c, copy);
    fclose(copy);
    enum status status = ferror(file) ? status_fail(STATUS_DATA, "%s: cannot read: %s", path, strerror(errno))
                                      : manifest_parse(manifest, json, (int64_t)length, path);
    free(json);
    return status;
}

enum status manifest_read(struct manifest *manifest, const char *folder) {
    char path[PATH_MAX];
    *manifest = (struct manifest){0};
    snprintf(path, sizeof path, "%s/" MANIFEST_FILE, folder);
    FILE *file = fopen(path, "re");
    if (!file)
        return status_fail(STATUS_DATA, "%s: expected the manifest of a finished `vqmoe data prepare`, found: %s", path,
                           strerror(errno));
    enum status status = parse_file(manifest, file, path);
    fclose(file);
    return status;
}

/* ---- Writing ---- */

static void put_sum(cJSON *object, const char *name, uint64_t sum) {
    char digits[17];
    snprintf(digits, sizeof digits, "%016" PRIx64, sum);
    cJSON_AddStringToObject(object, name, digits);
}

static void put_sources(cJSON *root, const struct manifest *m) {
    cJSON *list = cJSON_AddArrayToObject(root, "sources");
    for (int64_t i = 0; i < m->n_sources; ++i) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", m->sources[i].name);
        cJSON_AddNumberToObject(item, "bytes", (double)m->sources[i].bytes);
        cJSON_AddNumberToObject(item, "modified", (double)m->sources[i].modified);
        cJSON_AddStringToObject(item, "sha256", m->sources[i].sha256);
        cJSON_AddItemToArray(list, item);
    }
}

static void put_vocabulary(cJSON *root, const struct manifest *m) {
    cJSON *object = cJSON_AddObjectToObject(root, "vocabulary");
    if (!m->bytes) {
        cJSON_AddStringToObject(object, "file", VOCABULARY_FILE);
        cJSON_AddNumberToObject(object, "words", (double)m->V);
        cJSON_AddNumberToObject(object, "file_bytes", (double)m->vocabulary_bytes);
        cJSON_AddStringToObject(object, "sha256", m->vocabulary_sha256);
        return;
    }
    cJSON *list = cJSON_AddArrayToObject(object, "bytes");
    for (int64_t i = 0; i < m->V; ++i) cJSON_AddItemToArray(list, cJSON_CreateNumber(m->byte_of[i]));
}

static cJSON *part_object(const struct manifest *m, enum split split, int64_t number) {
    const struct manifest_part *part = &m->splits[split].parts[number];
    cJSON *item = cJSON_CreateObject();
    char name[PART_NAME];
    manifest_part_name(name, split, number, ".bin");
    cJSON_AddStringToObject(item, "file", name);
    cJSON_AddNumberToObject(item, "tokens", (double)part->tokens);
    cJSON_AddNumberToObject(item, "sentences", (double)part->sentences);
    cJSON_AddNumberToObject(item, "unknown", (double)part->unknown);
    cJSON_AddNumberToObject(item, "bytes", (double)part->bytes);
    put_sum(item, "xxh3", part->sum);
    if (m->kind == DATA_LM1B) put_sum(item, "index_xxh3", part->index);
    return item;
}

static void put_splits(cJSON *root, const struct manifest *m) {
    cJSON *splits = cJSON_AddObjectToObject(root, "splits");
    for (int s = 0; s < SPLITS; ++s) {
        const struct manifest_split *split = &m->splits[s];
        if (!split->n_parts) continue;
        cJSON *object = cJSON_AddObjectToObject(splits, split_names[s]);
        cJSON_AddNumberToObject(object, "tokens", (double)split->tokens);
        cJSON_AddNumberToObject(object, "sentences", (double)split->sentences);
        cJSON_AddNumberToObject(object, "unknown", (double)split->unknown);
        cJSON_AddNumberToObject(object, "bytes", (double)split->bytes);
        cJSON *list = cJSON_AddArrayToObject(object, "parts");
        for (int64_t i = 0; i < split->n_parts; ++i) cJSON_AddItemToArray(list, part_object(m, (enum split)s, i));
    }
}

char *manifest_text(const struct manifest *m) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddNumberToObject(root, "format_version", MANIFEST_VERSION);
    cJSON_AddStringToObject(root, "written_by", m->tool);
    cJSON_AddStringToObject(root, "kind", manifest_kinds[m->kind]);
    cJSON_AddStringToObject(root, "newlines", newlines_names[m->newlines]);
    cJSON_AddNumberToObject(root, "min_count", (double)m->min_count);
    cJSON_AddNumberToObject(root, "token_bytes", manifest_width(m->V));
    put_sources(root, m);
    put_vocabulary(root, m);
    put_splits(root, m);
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    size_t length = text ? strlen(text) : 0;
    if (!text || !(text = realloc(text, length + 2))) FATAL("out of memory");
    text[length] = '\n';
    text[length + 1] = '\0';
    return text;
}
