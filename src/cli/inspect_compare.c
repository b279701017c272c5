#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"

enum { HASH_DIGITS = 16 };

/* A route_hashes.tsv, line by line. */
struct hashes {
    char path[1024];
    FILE *file;
    char *text; /* the current line */
    size_t room;
    const char *list; /* in it: hashes with a tab or the line feed behind each; NULL: no line is left */
    int64_t lines, first, step, layers;
};

static int64_t count_hashes(const char *list) {
    for (int64_t count = 1; strspn(list, "0123456789abcdef") == HASH_DIGITS; count++, list += HASH_DIGITS + 1)
        if (list[HASH_DIGITS] != '\t') return list[HASH_DIGITS] == '\n' ? count : 0;
    return 0;
}

/* A last line without its end is still being written, or was when its run was killed: no line. */
static enum status next(struct hashes *h) {
    ssize_t length = getline(&h->text, &h->room, h->file);
    h->list = NULL;
    if (ferror(h->file)) return status_fail(STATUS_DATA, "%s: cannot read: %s", h->path, strerror(errno));
    if (length <= 0 || h->text[length - 1] != '\n') return STATUS_OK;
    char *end;
    int64_t step = strtoll(h->text, &end, 10), layers = *end == '\t' ? count_hashes(end + 1) : 0;
    if (h->lines++ == 0 && step > 0 && layers) {
        h->first = step;
        h->layers = layers;
    } else if (!layers || layers != h->layers || step != h->step + 1) {
        char expected[64] = "a step, a tab and hashes";
        if (h->layers)
            snprintf(expected, sizeof expected, "step %lld and %lld hashes", (long long)h->step + 1,
                     (long long)h->layers);
        return status_fail(STATUS_DATA, "%s:%lld: expected %s of %d hexadecimal digits, found '%.*s'", h->path,
                           (long long)h->lines, expected, HASH_DIGITS, (int)strcspn(h->text, "\n"), h->text);
    }
    h->step = step;
    h->list = end + 1;
    return STATUS_OK;
}

static enum status open_run(struct hashes *h, struct config *config, const char *run) {
    char path[1024];
    const char *files[] = {path};
    snprintf(path, sizeof path, "%s/config.yaml", run);
    snprintf(h->path, sizeof h->path, "%s/route_hashes.tsv", run);
    h->file = fopen(h->path, "r");
    if (!h->file)
        return status_fail(STATUS_DATA, "%s: expected the route hashes of a run, found: %s", h->path, strerror(errno));
    enum status status = config_load(config, files, 1, NULL, 0);
    if (!status) status = next(h);
    if (!status && !h->list)
        status = status_fail(STATUS_DATA, "%s: expected a line of at least one step, found none", h->path);
    return status;
}

/* Reads both to their ends. same: last step of both that agrees; step, layer: where the first difference is, or 0. A
 * layer that only one of them has differs. */
static enum status find_difference(struct hashes *a, struct hashes *b, int64_t *same, int64_t *step, int64_t *layer) {
    enum status status = STATUS_OK;
    *same = *step = *layer = 0;
    while (!status && (a->list || b->list)) {
        bool both = a->list && b->list && a->step == b->step;
        if (both && !*step && strcmp(a->list, b->list) != 0) {
            int64_t at = 0;
            while (a->list[at] == b->list[at]) at++;
            *step = a->step;
            *layer = (at + 1) / (HASH_DIGITS + 1); /* behind the last hash of one stands a tab in the other */
        }
        if (both && !*step) *same = a->step;
        bool a_moves = both || !b->list || (a->list && a->step < b->step);
        if (a_moves) status = next(a);
        if (!status && (both || !a_moves)) status = next(b);
    }
    return status;
}

static enum status compare(struct hashes *a, struct hashes *b, const char *name_a, const char *name_b) {
    int64_t same, step, layer;
    enum status status = find_difference(a, b, &same, &step, &layer);
    if (status) return status;
    if (!same && !step)
        return status_fail(STATUS_DATA, "%s: expected a step from %lld to %lld, as in %s, found %lld to %lld", b->path,
                           (long long)a->first, (long long)a->step, a->path, (long long)b->first, (long long)b->step);
    if (step)
        log_info("differ at step %lld, layer %lld", (long long)step, (long long)layer);
    else
        log_info("same through step %lld", (long long)same);
    log_info("%s: steps %lld to %lld", name_a, (long long)a->first, (long long)a->step);
    log_info("%s: steps %lld to %lld", name_b, (long long)b->first, (long long)b->step);
    return STATUS_OK;
}

static void close_run(struct hashes *h) {
    if (h->file) fclose(h->file);
    free(h->text);
}

enum status inspect_compare(const char *a, const char *b) {
    struct hashes of_a = {0}, of_b = {0};
    struct config config_a, config_b;
    enum status status = open_run(&of_a, &config_a, a);
    if (!status) status = open_run(&of_b, &config_b, b);
    if (!status) status = compare(&of_a, &of_b, a, b);
    if (!status) {
        memcpy(config_a.run.dir, config_b.run.dir, sizeof config_a.run.dir); /* differs for sure, and says nothing */
        config_print_differences(&config_a, &config_b, a, b, stdout);
    }
    close_run(&of_a);
    close_run(&of_b);
    return status;
}
