#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/keys.h"

/* Members are copied in and out: an enum is stored as an int. */
_Static_assert(sizeof(enum preset) == sizeof(int), "enums are ints");

static bool is_word(const struct config_key *key, const char *text) { return key->word && !strcmp(text, key->word); }

static bool parse_int(const struct config_key *key, const char *text, int64_t *value) {
    if (is_word(key, text)) {
        *value = key->word_value;
        return true;
    }
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return end != text && !*end && !isspace((unsigned char)*text) && !errno && *value >= key->min && *value <= key->max;
}

static bool parse_real(const struct config_key *key, const char *text, double *value) {
    if (is_word(key, text)) {
        *value = (double)key->word_value;
        return true;
    }
    char *end;
    *value = strtod(text, &end);
    if (end == text || *end || isspace((unsigned char)*text) || !isfinite(*value)) return false;
    if (key->type == KEY_FRACTION) return *value >= 0 && *value < 1;
    return *value >= key->min && *value <= key->max;
}

/* Position of the word in "first|second". */
static bool parse_name(const char *names, const char *text, int *value) {
    size_t length = strlen(text);
    *value = 0;
    for (const char *name = names; name; name = strchr(name, '|'), (*value)++) {
        if (*name == '|') name++;
        if (strcspn(name, "|") == length && strncmp(name, text, length) == 0) return true;
    }
    return false;
}

static bool parse_text(const struct config_key *key, const char *text, char *member) {
    if (strlen(text) >= key->size) return false;
    strcpy(member, text);
    return true;
}

bool key_parse(const struct config_key *key, const char *text, struct config *config) {
    void *member = (char *)config + key->offset;
    union {
        int64_t whole;
        double real;
        int name;
        bool truth;
    } value;
    bool good = false;
    switch (key->type) {
    case KEY_TEXT: return parse_text(key, text, member);
    case KEY_ENUM: good = parse_name(key->names, text, &value.name); break;
    case KEY_BOOL:
        value.truth = strcmp(text, "true") == 0;
        good = value.truth || strcmp(text, "false") == 0;
        break;
    case KEY_INT: good = parse_int(key, text, &value.whole); break;
    case KEY_REAL:
    case KEY_FRACTION: good = parse_real(key, text, &value.real); break;
    }
    if (good) memcpy(member, &value, key->size);
    return good;
}

void key_expected(const struct config_key *key, char *out, size_t size) {
    const char * or = key->word ? " or " : "", *word = key->word ? key->word : "";
    switch (key->type) {
    case KEY_TEXT: snprintf(out, size, "text of at most %zu bytes", key->size - 1); break;
    case KEY_ENUM: snprintf(out, size, "%s%s", strchr(key->names, '|') ? "one of " : "", key->names); break;
    case KEY_BOOL: snprintf(out, size, "true or false"); break;
    case KEY_INT: snprintf(out, size, "an integer from %.0f to %.0f%s%s", key->min, key->max, or, word); break;
    case KEY_REAL: snprintf(out, size, "a number from %g to %g%s%s", key->min, key->max, or, word); break;
    case KEY_FRACTION: snprintf(out, size, "a number from 0 to below 1"); break;
    }
}

/* The shortest of the texts that give the same number back. */
static void format_real(double value, char *out, size_t size) {
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, size, "%.*g", digits, value);
        if (strtod(out, NULL) == value) return;
    }
}

static void format_name(const char *names, int value, char *out, size_t size) {
    for (; value > 0; value--) names = strchr(names, '|') + 1;
    snprintf(out, size, "%.*s", (int)strcspn(names, "|"), names);
}

void key_format(const struct config_key *key, const struct config *config, char *out, size_t size) {
    const void *member = (const char *)config + key->offset;
    switch (key->type) {
    case KEY_TEXT: snprintf(out, size, "%s", (const char *)member); break;
    case KEY_ENUM: format_name(key->names, *(const int *)member, out, size); break;
    case KEY_BOOL: snprintf(out, size, "%s", *(const bool *)member ? "true" : "false"); break;
    case KEY_INT:
        if (key->word && *(const int64_t *)member == key->word_value)
            snprintf(out, size, "%s", key->word);
        else
            snprintf(out, size, "%lld", (long long)*(const int64_t *)member);
        break;
    case KEY_REAL:
    case KEY_FRACTION:
        if (key->word && *(const double *)member == (double)key->word_value)
            snprintf(out, size, "%s", key->word);
        else
            format_real(*(const double *)member, out, size);
        break;
    }
}
