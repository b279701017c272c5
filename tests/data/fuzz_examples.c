/* Whatever bytes a labelled file has, its reader takes them or says in one line what is wrong. The first byte chooses
 * the format and, of columns, how they are asked for; the rest is the file, which is training and test at once. */
#include "fuzz_examples.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "data/examples.h"
#include "data/records.h"

static const char *const name = "fuzzed";

static void check_text(const struct examples *examples, int64_t i) {
    const char *text = examples->bytes + examples->offset[i], *trimmed = text;
    int64_t size = examples->offset[i + 1] - examples->offset[i], rest = size;
    trim(&trimmed, &rest);
    CHECK(size > 0 && trimmed == text && rest == size);
    CHECK(utf8_check(name, text, size) == STATUS_OK);
    CHECK(strlen(examples->places + examples->place[i]) > 0);
}

static void check_labelled(const struct labelled *labelled) {
    CHECK(labelled->n_classes >= 2 && labelled->splits[SPLIT_TRAIN].count > 0 &&
          labelled->splits[SPLIT_VALID].count > 0);
    for (int s = 0; s < SPLITS; ++s)
        for (int64_t i = 0; i < labelled->splits[s].count; ++i) {
            int32_t label = labelled->splits[s].label[i];
            CHECK(label >= 0 && label < labelled->n_classes);
            check_text(&labelled->splits[s], i);
        }
    for (int64_t c = 1; c < labelled->n_classes; ++c)
        CHECK(strcmp(labelled->classes[c - 1], labelled->classes[c]) != 0);
}

static struct config config_of(uint8_t choice) {
    static const enum data_kind kinds[4] = {DATA_CSV, DATA_TSV, DATA_TREES, DATA_IMDB};
    static const char *const texts[4] = {"", "2", "text", "1"}, *const labels[4] = {"", "1", "", "label"};
    struct config config = {.data = {.kind = kinds[choice % 4]}};
    strcpy(config.data.text, texts[choice / 4 % 4]);
    strcpy(config.data.label, labels[choice / 4 % 4]);
    return config;
}

bool fuzz_examples(const uint8_t *data, size_t size) {
    struct records records[SPLITS] = {{.path = name}, {.path = name}, {.path = name}};
    struct labelled labelled;
    if (size < 1) return false;
    struct config config = config_of(data[0]);
    char *bytes = malloc(size); /* of its own size, so that a sanitizer sees its ends */
    CHECK(bytes != NULL);
    memcpy(bytes, data + 1, size - 1);
    enum status status = records_parse(&records[SPLIT_TRAIN], bytes, (int64_t)size - 1, &config, "train");
    if (!status) status = records_parse(&records[SPLIT_TEST], bytes, (int64_t)size - 1, &config, "test");
    if (!status) status = labelled_from(&labelled, records);
    if (!status) {
        check_labelled(&labelled);
        labelled_free(&labelled);
    }
    const char *said = status_message();
    CHECK(!status || (status == STATUS_DATA && !strncmp(said, name, strlen(name)) && !strchr(said, '\n')));
    CHECK(utf8_check(name, said, (int64_t)strlen(said)) == STATUS_OK);
    status_clear();
    for (int s = 0; s < SPLITS; ++s) records_free(&records[s]);
    free(bytes);
    return !status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_examples(data, size);
    return 0;
}
