/* The configuration as JSON, the form in which a checkpoint keeps it. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "config/loader.h"

/* "model" is the section of "model.layers"; no sections: every key. */
static bool is_in(const char *key, const char *const *sections) {
    bool found = !sections;
    for (; sections && *sections && !found; ++sections) {
        size_t length = strlen(*sections);
        found = !strncmp(key, *sections, length) && key[length] == '.';
    }
    return found;
}

enum status loader_read_json(struct loader *loader, const char *json, const char *source, const char *const *sections) {
    struct origin where = {source, ORIGIN_FILE, 0, ++loader->n_sources};
    cJSON *root = cJSON_Parse(json);
    if (!cJSON_IsObject(root)) {
        cJSON_Delete(root);
        return loader_fail(&where, NULL, "expected a JSON object of configuration keys");
    }
    enum status status = STATUS_OK;
    cJSON *item;
    cJSON_ArrayForEach(item, root) {
        if (!is_in(item->string, sections)) continue;
        char whole[32]; /* cJSON prints a large integer as 1e+15, which is none for us; up to 2^53 a double is exact */
        bool is_whole =
            cJSON_IsNumber(item) && fabs(item->valuedouble) < 0x1p53 && floor(item->valuedouble) == item->valuedouble;
        if (is_whole) snprintf(whole, sizeof whole, "%.0f", item->valuedouble);
        char *text = cJSON_IsString(item) ? cJSON_GetStringValue(item)
                     : is_whole           ? whole
                                          : cJSON_PrintUnformatted(item);
        if (!text) FATAL("out of memory");
        status = loader_set(loader, &where, item->string, text);
        if (!cJSON_IsString(item) && !is_whole) cJSON_free(text);
        if (status) break;
    }
    cJSON_Delete(root);
    return status;
}

/* Numbers and truth values go in as they are printed: only texts need quotes. */
static bool is_quoted(const struct config_key *key, const char *text) {
    return key->type == KEY_TEXT || key->type == KEY_ENUM || (key->word && strcmp(text, key->word) == 0);
}

const char *loader_json_library(void) { return cJSON_Version(); }

char *config_to_json(const struct config *config) {
    cJSON *root = cJSON_CreateObject();
    for (int i = 0; i < config_n_keys; i++) {
        const struct config_key *key = &config_keys[i];
        char text[CONFIG_TEXT];
        key_format(key, config, text, sizeof text);
        if (is_quoted(key, text))
            cJSON_AddStringToObject(root, key->name, text);
        else
            cJSON_AddRawToObject(root, key->name, text);
    }
    char *json = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    if (!json) FATAL("out of memory");
    return json;
}
