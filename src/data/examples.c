#include "data/examples.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "base/log.h"
#include "data/records.h"

enum { VALID_SHARE = 10, MOST_CLASSES = 10000 };

/* ---- Files ---- */

static enum status read_split(struct records *records, const struct config *config, const char *path,
                              const char *part) {
    struct stat info;
    char *bytes;
    int64_t size;
    records->path = path;
    if (config->data.kind == DATA_IMDB && stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return records_imdb_folder(records, part);
    TRY(file_read(path, &bytes, &size));
    enum status status = records_parse(records, bytes, size, config, part);
    free(bytes);
    return status;
}

static enum status read_splits(struct records records[SPLITS], const struct config *config) {
    static const char *const keys[SPLITS] = {"data.train", "data.valid", "data.test"};
    const char *paths[SPLITS] = {config->data.train, config->data.valid, config->data.test};
    bool imdb = config->data.kind == DATA_IMDB;
    if (!paths[0][0]) return status_fail(STATUS_DATA, "data.train: expected the path of labelled texts, found none");
    for (int s = 0; s < SPLITS; ++s) {
        bool within = imdb && s == SPLIT_TEST && !paths[s][0]; /* the training set's own */
        if (!paths[s][0] && !within) continue;
        TRY(read_split(&records[s], config, within ? paths[0] : paths[s], s == SPLIT_TEST ? "test" : "train"));
        if (records[s].count == 0 && !within)
            return status_fail(STATUS_DATA, "%s: %s: expected reviews in test/neg and test/pos, found none", keys[s],
                               paths[s]);
    }
    return STATUS_OK;
}

/* ---- Headers ---- */

static const char *label_of(const struct records *records, int64_t i) {
    return records->bytes + records->list[i].label;
}

static const char *text_of(const struct records *records, int64_t i) { return records->bytes + records->list[i].text; }

static bool is_integer(const char *label) {
    size_t digits = strspn(label + (*label == '-'), "0123456789");
    return digits >= 1 && digits <= 18 && !label[(*label == '-') + digits];
}

/* A header's label is no number and occurs nowhere else. */
static bool begins_with_header(const struct records *train) {
    if (train->count <= 2 || is_integer(label_of(train, 0))) return false;
    for (int64_t i = 1; i < train->count; ++i)
        if (!strcmp(label_of(train, i), label_of(train, 0))) return false;
    return true;
}

static void drop_first(struct records *records) {
    memmove(records->list, records->list + 1, (size_t)--records->count * sizeof *records->list);
}

/* Where no column is named, training has a header or not; the other files have the same or none. */
static enum status drop_headers(struct records records[SPLITS]) {
    struct records *train = &records[SPLIT_TRAIN];
    if (train->header != HEADER_PERHAPS || !begins_with_header(train)) return STATUS_OK;
    const char *text = text_of(train, 0), *label = label_of(train, 0);
    for (int s = 0; s < SPLITS; ++s) {
        struct records *one = &records[s];
        if (one->count == 0 || strcmp(text_of(one, 0), text) != 0 || strcmp(label_of(one, 0), label) != 0) continue;
        log_info("%s: header %s,%s", one->path, shown_bytes(text, (int64_t)strlen(text)).text,
                 shown_bytes(label, (int64_t)strlen(label)).text);
        drop_first(one);
        if (one->count == 0)
            return status_fail(STATUS_DATA, "%s: expected texts after the header, found none", one->path);
    }
    return STATUS_OK;
}

/* ---- Classes ---- */

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int compare_numbers(const void *a, const void *b) {
    long long x = atoll(*(char *const *)a), y = atoll(*(char *const *)b);
    return x < y ? -1 : x > y ? 1 : compare_names(a, b);
}

typedef int comparison(const void *, const void *);

static comparison *order_of(char *const *names, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
        if (!is_integer(names[i])) return compare_names;
    return compare_numbers;
}

static enum status find_classes(struct labelled *labelled, const struct records *train) {
    int64_t n = train->count, classes = 0;
    char **names = malloc((size_t)(n + 1) * sizeof *names);
    if (!names) return status_fail(STATUS_INTERNAL, "%s: out of memory", train->path);
    for (int64_t i = 0; i < n; ++i) names[i] = train->bytes + train->list[i].label;
    qsort(names, (size_t)n, sizeof *names, compare_names);
    for (int64_t i = 0; i < n; ++i)
        if (i == 0 || strcmp(names[i], names[classes - 1]) != 0) names[classes++] = names[i];
    qsort(names, (size_t)classes, sizeof *names, order_of(names, classes));
    labelled->classes = names;
    for (int64_t i = 0; i < classes; ++i, ++labelled->n_classes)
        if (!(names[i] = strdup(names[i]))) return status_fail(STATUS_INTERNAL, "%s: out of memory", train->path);
    if (classes < 2)
        return status_fail(STATUS_DATA, "%s: expected at least two classes, found only '%s'", train->path,
                           shown_bytes(names[0], (int64_t)strlen(names[0])).text);
    if (classes > MOST_CLASSES)
        return status_fail(STATUS_DATA, "%s: expected at most %d classes, found %" PRId64 ": is data.label right?",
                           train->path, MOST_CLASSES, classes);
    return STATUS_OK;
}

static enum status find_class(const struct labelled *labelled, comparison *order, const struct records *records,
                              int64_t i, int32_t *class) {
    const char *label = label_of(records, i);
    char *const *found =
        bsearch(&label, labelled->classes, (size_t)labelled->n_classes, sizeof *labelled->classes, order);
    if (!found)
        return status_fail(STATUS_DATA, "%s:%s: expected a label of the training file, found '%s'", records->path,
                           records->bytes + records->list[i].place, shown_bytes(label, (int64_t)strlen(label)).text);
    *class = (int32_t)(found - labelled->classes);
    return STATUS_OK;
}

/* ---- Splits ---- */

enum share { ALL, TENTH, REST };

static bool belongs(const struct records *records, int64_t i, enum share share) {
    if (share == ALL) return true;
    uint64_t hash = hash_bytes(text_of(records, i), (size_t)records->list[i].size, 0);
    return (hash % VALID_SHARE == 0) == (share == TENTH);
}

static enum status allocate(struct examples *examples, const struct records *records, int64_t bytes, int64_t places) {
    size_t n = (size_t)examples->count;
    snprintf(examples->path, sizeof examples->path, "%s", records->path);
    examples->bytes = malloc((size_t)bytes + 1);
    examples->places = malloc((size_t)places + 1);
    examples->offset = calloc(n + 1, sizeof *examples->offset);
    examples->label = malloc((n + 1) * sizeof *examples->label);
    examples->place = malloc((n + 1) * sizeof *examples->place);
    if (examples->bytes && examples->places && examples->offset && examples->label && examples->place) return STATUS_OK;
    return status_fail(STATUS_INTERNAL, "%s: out of memory", records->path);
}

static enum status fill(struct labelled *labelled, enum split split, const struct records *records, enum share share) {
    struct examples *examples = &labelled->splits[split];
    comparison *order = order_of(labelled->classes, labelled->n_classes);
    int64_t bytes = 0, places = 0, i = 0;
    for (int64_t r = 0; r < records->count; ++r)
        if (belongs(records, r, share)) {
            bytes += records->list[r].size;
            places += (int64_t)strlen(records->bytes + records->list[r].place) + 1;
            ++examples->count;
        }
    if (examples->count == 0) {
        if (records->count == 0) return STATUS_OK;
        return status_fail(STATUS_DATA,
                           "%s: expected enough texts to take a tenth of them for validation, found %" PRId64,
                           records->path, records->count);
    }
    TRY(allocate(examples, records, bytes, places));
    places = 0;
    for (int64_t r = 0; r < records->count; ++r) {
        if (!belongs(records, r, share)) continue;
        const struct record *record = &records->list[r];
        const char *place = records->bytes + record->place;
        TRY(find_class(labelled, order, records, r, &examples->label[i]));
        memcpy(examples->bytes + examples->offset[i], text_of(records, r), (size_t)record->size);
        examples->place[i] = places;
        strcpy(examples->places + places, place);
        places += (int64_t)strlen(place) + 1;
        examples->offset[i + 1] = examples->offset[i] + record->size;
        ++i;
    }
    return STATUS_OK;
}

static void free_examples(struct examples *examples) {
    free(examples->bytes);
    free(examples->offset);
    free(examples->label);
    free(examples->places);
    free(examples->place);
}

void labelled_free(struct labelled *labelled) {
    for (int s = 0; s < SPLITS; ++s) free_examples(&labelled->splits[s]);
    for (int64_t i = 0; i < labelled->n_classes; ++i) free(labelled->classes[i]);
    free(labelled->classes);
    *labelled = (struct labelled){0};
}

static enum status fill_splits(struct labelled *labelled, struct records records[SPLITS]) {
    const struct records *train = &records[SPLIT_TRAIN], *valid = &records[SPLIT_VALID];
    bool divide = valid->count == 0;
    TRY(drop_headers(records));
    TRY(find_classes(labelled, train));
    TRY(fill(labelled, SPLIT_TRAIN, train, divide ? REST : ALL));
    TRY(fill(labelled, SPLIT_VALID, divide ? train : valid, divide ? TENTH : ALL));
    TRY(fill(labelled, SPLIT_TEST, &records[SPLIT_TEST], ALL));
    if (divide)
        log_info("%s: %" PRId64 " of %" PRId64 " texts, chosen by their hashes, are for validation", train->path,
                 labelled->splits[SPLIT_VALID].count, train->count);
    return STATUS_OK;
}

enum status labelled_from(struct labelled *labelled, struct records records[SPLITS]) {
    *labelled = (struct labelled){0};
    enum status status = fill_splits(labelled, records);
    if (status) labelled_free(labelled);
    return status;
}

enum status labelled_open(struct labelled *labelled, const struct config *config) {
    struct records records[SPLITS] = {{0}};
    enum status status = read_splits(records, config);
    if (!status) status = labelled_from(labelled, records);
    for (int s = 0; s < SPLITS; ++s) records_free(&records[s]);
    return status;
}

/* ---- What a model makes of them ---- */

static int64_t size_of(const struct examples *examples, int64_t i) {
    return examples->offset[i + 1] - examples->offset[i];
}

enum status labelled_check_lengths(const struct labelled *labelled, int64_t length, enum too_long too_long) {
    int64_t longer[SPLITS] = {0}, all = 0;
    for (int s = 0; s < SPLITS; ++s) {
        const struct examples *examples = &labelled->splits[s];
        for (int64_t i = 0; i < examples->count; ++i) {
            if (size_of(examples, i) < length) continue;
            if (too_long == TOO_LONG_REFUSE)
                return status_fail(STATUS_DATA,
                                   "%s:%s: data.too_long: expected a text of at most %" PRId64
                                   " bytes (classifier.length - 1), found %" PRId64,
                                   examples->path, examples->places + examples->place[i], length - 1,
                                   size_of(examples, i));
            ++longer[s];
        }
        all += longer[s];
    }
    if (all)
        log_warning("texts longer than %" PRId64 " bytes (classifier.length - 1): train %" PRId64 " of %" PRId64
                    ", valid %" PRId64 " of %" PRId64 ", test %" PRId64 " of %" PRId64 "; their beginning is left out",
                    length - 1, longer[0], labelled->splits[0].count, longer[1], labelled->splits[1].count, longer[2],
                    labelled->splits[2].count);
    return STATUS_OK;
}

double *labelled_class_weights(const struct labelled *labelled) {
    const struct examples *train = &labelled->splits[SPLIT_TRAIN];
    double *weights = calloc((size_t)labelled->n_classes, sizeof *weights);
    if (!weights) return NULL;
    for (int64_t i = 0; i < train->count; ++i) weights[train->label[i]] += 1;
    for (int64_t c = 0; c < labelled->n_classes; ++c)
        if (weights[c] > 0) weights[c] = (double)train->count / ((double)labelled->n_classes * weights[c]);
    return weights;
}

int64_t text_encode(const char *text, int64_t size, const struct vocabulary *bytes, int64_t length, int32_t *tokens,
                    bool *truncated) {
    trim(&text, &size);
    int16_t space = bytes->symbol_of[' '] < 0 ? 0 : bytes->symbol_of[' '];
    int64_t n = size < length - 1 ? size : length - 1;
    *truncated = n < size;
    for (int64_t i = 0; i < n; ++i) {
        int16_t symbol = bytes->symbol_of[(unsigned char)text[size - n + i]];
        tokens[i] = symbol < 0 ? space : symbol;
    }
    tokens[n] = (int32_t)bytes->size;
    return n + 1;
}

int64_t examples_encode(const struct examples *examples, int64_t i, const struct vocabulary *bytes, int64_t length,
                        int32_t *tokens, bool *truncated) {
    return text_encode(examples->bytes + examples->offset[i], size_of(examples, i), bytes, length, tokens, truncated);
}
