#include "train/scores.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/files.h"
#include "base/log.h"

enum status scores_init(struct scores *scores, int64_t classes) {
    *scores = (struct scores){classes, calloc((size_t)(classes * classes), sizeof *scores->confusion)};
    if (scores->confusion) return STATUS_OK;
    return status_fail(STATUS_INTERNAL, "out of memory: a confusion matrix of %" PRId64 " classes", classes);
}

void scores_free(struct scores *scores) {
    free(scores->confusion);
    *scores = (struct scores){0};
}

void scores_add(struct scores *scores, int32_t class, int32_t predicted) {
    CHECK(class >= 0 && class < scores->classes && predicted >= 0 && predicted < scores->classes);
    ++scores->confusion[class * scores->classes + predicted];
}

/* Of one class: its examples, its predictions, and what is both. */
struct tally {
    int64_t examples, predictions, hits;
};

static struct tally tally_of(const struct scores *scores, int64_t class) {
    struct tally tally = {.hits = scores->confusion[class * scores->classes + class]};
    for (int64_t c = 0; c < scores->classes; ++c) {
        tally.examples += scores->confusion[class * scores->classes + c];
        tally.predictions += scores->confusion[c * scores->classes + class];
    }
    return tally;
}

double scores_accuracy(const struct scores *scores) {
    int64_t hits = 0, examples = 0;
    for (int64_t c = 0; c < scores->classes; ++c) {
        struct tally tally = tally_of(scores, c);
        hits += tally.hits;
        examples += tally.examples;
    }
    return examples ? (double)hits / (double)examples : 0;
}

double scores_macro_f1(const struct scores *scores) {
    double sum = 0;
    for (int64_t c = 0; c < scores->classes; ++c) {
        struct tally tally = tally_of(scores, c);
        int64_t both = tally.examples + tally.predictions;
        if (both) sum += 2 * (double)tally.hits / (double)both;
    }
    return sum / (double)scores->classes;
}

/* ---- For people ---- */

enum { NAME = 20, CELL = 8, MOST_COLUMNS = 8, MOST_PAIRS = 10, PAIR_NAME = 30 };

/* A name for a cell, whole letters and no control characters, padded on the right or (cells of numbers) on the left. */
static int put_name(char *to, const char *name, int width, bool left) {
    char cut[4 * PAIR_NAME + 1];
    int bytes = 0, letters = 0;
    for (; name[bytes] && bytes < 4 * width; ++bytes) {
        if ((name[bytes] & 0xC0) != 0x80 && letters++ == width) break;
        cut[bytes] = (unsigned char)name[bytes] < ' ' ? ' ' : name[bytes];
    }
    int blanks = letters < width ? width - letters : 0;
    return sprintf(to, "%*s%.*s%*s", left ? 0 : blanks, "", bytes, cut, left ? blanks : 0, "");
}

static void log_matrix(const struct scores *scores, char *const *names) {
    char line[4 * (NAME + (CELL + 1) * MOST_COLUMNS) + 64];
    int at = put_name(line, "is \\ taken for", NAME, true);
    for (int64_t c = 0; c < scores->classes; ++c) {
        line[at++] = ' ';
        at += put_name(line + at, names[c], CELL, false);
    }
    log_info("%s", line);
    for (int64_t c = 0; c < scores->classes; ++c) {
        at = put_name(line, names[c], NAME, true);
        for (int64_t p = 0; p < scores->classes; ++p)
            at += snprintf(line + at, sizeof line - (size_t)at, " %*" PRId64, CELL,
                           scores->confusion[c * scores->classes + p]);
        log_info("%s", line);
    }
}

/* The next pair by falling count, of equal counts in order of the matrix, after the pair `last`; -1: none. */
static int64_t next_pair(const struct scores *scores, int64_t last) {
    const int64_t *confusion = scores->confusion;
    int64_t n = scores->classes, best = -1;
    for (int64_t i = 0; i < n * n; ++i) {
        if (i / n == i % n || confusion[i] == 0) continue;
        if (last >= 0 && (confusion[i] > confusion[last] || (confusion[i] == confusion[last] && i <= last))) continue;
        if (best < 0 || confusion[i] > confusion[best]) best = i;
    }
    return best;
}

static void log_pairs(const struct scores *scores, char *const *names) {
    int64_t n = scores->classes, pair = -1;
    log_info("most confused of %" PRId64 " classes:", n);
    for (int i = 0; i < MOST_PAIRS && (pair = next_pair(scores, pair)) >= 0; ++i) {
        char class[4 * PAIR_NAME + 1], predicted[4 * PAIR_NAME + 1];
        put_name(class, names[pair / n], PAIR_NAME, true);
        put_name(predicted, names[pair % n], PAIR_NAME, true);
        log_info("  %5" PRId64 " of %5" PRId64 "  %s taken for %s", scores->confusion[pair],
                 tally_of(scores, pair / n).examples, class, predicted);
    }
}

void scores_log(const struct scores *scores, char *const *names) {
    if (scores->classes <= MOST_COLUMNS)
        log_matrix(scores, names);
    else
        log_pairs(scores, names);
}

/* ---- The file ---- */

static void put_field(FILE *file, const char *name) {
    for (; *name; ++name) fputc((unsigned char)*name < ' ' ? ' ' : *name, file);
}

static bool write_matrix(const struct scores *scores, char *const *names, FILE *file) {
    fputs("class", file);
    for (int64_t c = 0; c < scores->classes; ++c) {
        fputc('\t', file);
        put_field(file, names[c]);
    }
    for (int64_t c = 0; c < scores->classes; ++c) {
        fputc('\n', file);
        put_field(file, names[c]);
        for (int64_t p = 0; p < scores->classes; ++p)
            fprintf(file, "\t%" PRId64, scores->confusion[c * scores->classes + p]);
    }
    fputc('\n', file);
    return fflush(file) == 0 && !ferror(file) && fsync(fileno(file)) == 0;
}

enum status scores_write(const struct scores *scores, char *const *names, const char *path) {
    char beside[1040];
    snprintf(beside, sizeof beside, "%s.tmp", path);
    FILE *file = fopen(beside, "w");
    bool good = file && write_matrix(scores, names, file);
    int cause = errno;
    if (file && fclose(file) != 0 && good) good = false, cause = errno;
    if (good && files_replace(beside, path)) return STATUS_OK;
    if (good) cause = errno;
    if (file) unlink(beside);
    return status_fail(STATUS_WRITE, "%s: cannot write: %s", path, strerror(cause));
}
