#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "config/loader.h"

/* Length of the section in "section.key"; 0 for a bare name. */
static int section_length(const char *name) {
    const char *dot = strchr(name, '.');
    return dot ? (int)(dot - name) : 0;
}

static bool same_section(const struct config_key *a, const struct config_key *b) {
    int length = section_length(a->name);
    return length == section_length(b->name) && strncmp(a->name, b->name, (size_t)length) == 0;
}

static bool is_plain(const char *text) {
    if (!isalnum((unsigned char)*text) && *text != '/') return false;
    for (; *text; text++)
        if (!isalnum((unsigned char)*text) && !strchr("/._-", *text)) return false;
    return true;
}

static void print_scalar(const char *text, FILE *out) {
    if (is_plain(text)) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else if (iscntrl((unsigned char)*text))
            fprintf(out, "\\x%02x", (unsigned char)*text);
        else
            fputc(*text, out);
    }
    fputc('"', out);
}

void config_print_yaml(const struct config *config, FILE *out) {
    for (int i = 0; i < config_n_keys; i++) {
        const struct config_key *key = &config_keys[i];
        int section = section_length(key->name);
        if (i > 0 && !same_section(key, key - 1)) fputc('\n', out);
        if (section && (i == 0 || !same_section(key, key - 1))) fprintf(out, "%.*s:\n", section, key->name);
        fprintf(out, section ? "  %s: " : "%s: ", section ? key->name + section + 1 : key->name);
        char text[CONFIG_TEXT];
        key_format(key, config, text, sizeof text);
        print_scalar(text, out);
        fputc('\n', out);
    }
}

void config_print_differences(const struct config *a, const struct config *b, const char *name_a, const char *name_b,
                              FILE *out) {
    for (const struct config_key *key = config_keys; key < config_keys + config_n_keys; key++) {
        char text_a[CONFIG_TEXT], text_b[CONFIG_TEXT];
        key_format(key, a, text_a, sizeof text_a);
        key_format(key, b, text_b, sizeof text_b);
        if (strcmp(text_a, text_b) != 0)
            fprintf(out, "%s: %s in %s, %s in %s\n", key->name, text_a, name_a, text_b, name_b);
    }
}

static void format_range(const struct config_key *key, char *out, size_t size) {
    switch (key->type) {
    case KEY_TEXT: snprintf(out, size, "%s", key->size < CONFIG_TEXT ? "name" : "text"); break;
    case KEY_ENUM: snprintf(out, size, "%s", key->names); break;
    case KEY_BOOL: snprintf(out, size, "true|false"); break;
    case KEY_INT:
        snprintf(out, size, "%.0f..%.0f%s%s", key->min, key->max, key->word ? "|" : "", key->word ? key->word : "");
        break;
    case KEY_REAL:
        snprintf(out, size, "%g..%g real%s%s", key->min, key->max, key->word ? "|" : "", key->word ? key->word : "");
        break;
    case KEY_FRACTION: snprintf(out, size, "[0, 1) real"); break;
    }
}

void config_print_help(FILE *out) {
    fprintf(out, "%-26s %-25s %-9s %s\n", "key", "values", "default", "meaning");
    for (int i = 0; i < config_n_keys; i++) {
        const struct config_key *key = &config_keys[i];
        char range[64];
        format_range(key, range, sizeof range);
        if (i > 0 && !same_section(key, key - 1)) fputc('\n', out);
        fprintf(out, "%-26s %-25s %-9s %s", key->name, range, *key->value ? key->value : "''", key->help);
        if (key->published) fprintf(out, " (published: %s)", key->published);
        fputc('\n', out);
    }
}

const char *config_libraries(void) {
    static char text[64];
    snprintf(text, sizeof text, "libyaml %s, cJSON %s", loader_yaml_library(), loader_json_library());
    return text;
}
