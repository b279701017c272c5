/* The one place that includes yaml.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "config/loader.h"

struct source {
    struct loader *loader;
    yaml_document_t *document;
    struct origin where;
};

static bool is_empty_scalar(const yaml_node_t *node) {
    return node->type == YAML_SCALAR_NODE && node->data.scalar.length == 0;
}

static bool is_section(const char *name) {
    size_t length = strlen(name);
    for (int i = 0; i < config_n_keys; i++)
        if (strncmp(config_keys[i].name, name, length) == 0 && config_keys[i].name[length] == '.') return true;
    return false;
}

static enum status read_mapping(struct source *source, const yaml_node_t *mapping, const char *prefix);

static enum status read_pair(struct source *source, const yaml_node_t *key, const yaml_node_t *value,
                             const char *prefix) {
    struct origin *where = &source->where;
    char name[CONFIG_NAME];
    where->line = (int)key->start_mark.line + 1;
    if (key->type != YAML_SCALAR_NODE) return loader_fail(where, NULL, "expected a key, found a list or mapping");
    int length =
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", (const char *)key->data.scalar.value);
    bool too_long = length >= (int)sizeof name, known = key_find(name) && !too_long;
    if (is_section(name)) {
        if (value->type == YAML_MAPPING_NODE) return read_mapping(source, value, name);
        if (is_empty_scalar(value)) return STATUS_OK; /* all its keys are commented out */
        return loader_fail(where, name, "expected a mapping of keys, found a %s",
                           value->type == YAML_SCALAR_NODE ? "value" : "list");
    }
    /* Inside an unknown section the full name of its first key says best what was meant. */
    if (value->type == YAML_MAPPING_NODE && !known && !too_long &&
        value->data.mapping.pairs.top > value->data.mapping.pairs.start)
        return read_mapping(source, value, name);
    if (value->type != YAML_SCALAR_NODE && known)
        return loader_fail(where, name, "expected a value, found a %s",
                           value->type == YAML_MAPPING_NODE ? "mapping" : "list");
    const char *text = value->type == YAML_SCALAR_NODE ? (const char *)value->data.scalar.value : "";
    return loader_set(source->loader, where, name, text);
}

static enum status read_mapping(struct source *source, const yaml_node_t *mapping, const char *prefix) {
    for (yaml_node_pair_t *pair = mapping->data.mapping.pairs.start; pair < mapping->data.mapping.pairs.top; pair++) {
        enum status status = read_pair(source, yaml_document_get_node(source->document, pair->key),
                                       yaml_document_get_node(source->document, pair->value), prefix);
        if (status) return status;
    }
    return STATUS_OK;
}

static enum status read_document(struct source *source) {
    yaml_node_t *root = yaml_document_get_root_node(source->document);
    if (!root || is_empty_scalar(root)) return STATUS_OK;
    if (root->type == YAML_MAPPING_NODE) return read_mapping(source, root, "");
    source->where.line = (int)root->start_mark.line + 1;
    return loader_fail(&source->where, NULL, "expected a mapping of keys, found a %s",
                       root->type == YAML_SCALAR_NODE ? "value" : "list");
}

/* Every document of the stream. Only the first may hold anything: overlays are files of their own. */
static enum status read_stream(struct source *source, yaml_parser_t *parser) {
    for (int n = 0;; n++) {
        yaml_document_t document;
        if (!yaml_parser_load(parser, &document)) {
            source->where.line = (int)parser->problem_mark.line + 1;
            return loader_fail(&source->where, NULL, "expected YAML, found: %s%s%s",
                               parser->context ? parser->context : "", parser->context ? ": " : "",
                               parser->problem ? parser->problem : "no memory");
        }
        yaml_node_t *root = yaml_document_get_root_node(&document);
        source->document = &document;
        enum status status = STATUS_OK;
        if (root && n > 0) {
            source->where.line = (int)root->start_mark.line + 1;
            status = loader_fail(&source->where, NULL, "expected one YAML document, found another");
        } else {
            status = read_document(source);
        }
        yaml_document_delete(&document);
        if (status || !root) return status;
    }
}

enum status loader_read_yaml(struct loader *loader, const char *path) {
    struct source source = {loader, NULL, {path, ORIGIN_FILE, 0, ++loader->n_sources}};
    FILE *file = fopen(path, "rb");
    if (file && ungetc(fgetc(file), file) == EOF && ferror(file)) { /* a folder opens, but does not read */
        int cause = errno;
        fclose(file);
        file = NULL;
        errno = cause;
    }
    if (!file) return loader_fail(&source.where, NULL, "expected a configuration file, found: %s", strerror(errno));
    yaml_parser_t parser;
    enum status status;
    if (yaml_parser_initialize(&parser)) {
        yaml_parser_set_input_file(&parser, file);
        status = read_stream(&source, &parser);
        yaml_parser_delete(&parser);
    } else {
        status = status_fail(STATUS_INTERNAL, "out of memory");
    }
    fclose(file);
    return status;
}

const char *loader_yaml_library(void) { return yaml_get_version_string(); }
