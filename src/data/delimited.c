/* Texts and labels in columns: csv as of RFC 4180, and tsv without quoting. */
#include <csv.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "data/records.h"

/* The record being read. */
struct row {
    struct records *records;
    const struct config *config;
    char *bytes; /* its fields, each with a comma behind it */
    int64_t used, room;
    int64_t *ends; /* [fields] of each in `bytes` */
    int64_t fields, ends_room;
    int64_t expected;    /* fields of the first record; 0: this is the first */
    int64_t text, label; /* columns, from 0 */
    int64_t line;        /* where it began, from 1 */
    int64_t ended;       /* records that this line ended */
    enum status status;  /* of what the library called */
};

static const char *field_of(const struct row *row, int64_t column, int64_t *size) {
    int64_t begin = column ? row->ends[column - 1] + 1 : 0;
    const char *field = row->bytes + begin;
    *size = row->ends[column] - begin;
    trim(&field, size);
    return field;
}

static enum status row_field(struct row *row, const char *bytes, int64_t size) {
    TRY(reserve((void **)&row->ends, &row->ends_room, row->fields + 1, sizeof *row->ends));
    TRY(reserve((void **)&row->bytes, &row->room, row->used + size + 1, 1));
    if (size) memcpy(row->bytes + row->used, bytes, (size_t)size);
    row->ends[row->fields++] = row->used += size;
    row->bytes[row->used++] = ',';
    return STATUS_OK;
}

/* Which column the key asks for: a number from 1, or a name that the first record has, which makes that a header. */
static enum status find_column(struct row *row, const char *key, const char *asked, int64_t *column) {
    const char *path = row->records->path;
    if (!asked[0]) return STATUS_OK;
    if (strspn(asked, "0123456789") == strlen(asked)) {
        *column = strtoll(asked, NULL, 10) - 1;
        if (*column >= 0 && *column < row->fields) return STATUS_OK;
        return status_fail(STATUS_DATA, "%s:%" PRId64 ": %s: expected a column from 1 to %" PRId64 ", found %s", path,
                           row->line, key, row->fields, asked);
    }
    for (*column = 0; *column < row->fields; ++*column) {
        int64_t size;
        const char *name = field_of(row, *column, &size);
        if (size != (int64_t)strlen(asked) || memcmp(name, asked, (size_t)size) != 0) continue;
        row->records->header = HEADER_NAMED;
        return STATUS_OK;
    }
    return status_fail(STATUS_DATA, "%s:%" PRId64 ": %s: expected a column named '%s', found the line '%s'", path,
                       row->line, key, asked, shown_bytes(row->bytes, row->used - 1).text);
}

static enum status find_columns(struct row *row) {
    const char *path = row->records->path;
    if (row->fields < 2)
        return status_fail(STATUS_DATA, "%s:%" PRId64 ": expected at least 2 columns, found 1", path, row->line);
    row->records->header = HEADER_PERHAPS;
    row->expected = row->fields;
    row->text = 0;
    row->label = row->fields - 1;
    TRY(find_column(row, "data.text", row->config->data.text, &row->text));
    TRY(find_column(row, "data.label", row->config->data.label, &row->label));
    if (row->text == row->label)
        return status_fail(STATUS_DATA,
                           "%s:%" PRId64 ": expected two columns, found column %" PRId64
                           " as data.text and as data.label",
                           path, row->line, row->text + 1);
    return STATUS_OK;
}

static enum status row_end(struct row *row) {
    char place[32];
    int64_t size, label_size;
    bool first = row->expected == 0;
    if (first) TRY(find_columns(row));
    if (row->fields != row->expected)
        return status_fail(STATUS_DATA,
                           "%s:%" PRId64 ": expected %" PRId64 " columns as in the first line, found %" PRId64,
                           row->records->path, row->line, row->expected, row->fields);
    const char *text = field_of(row, row->text, &size), *label = field_of(row, row->label, &label_size);
    snprintf(place, sizeof place, "%" PRId64, row->line);
    if (first && row->records->header == HEADER_NAMED)
        log_info("%s: header %s", row->records->path, shown_bytes(row->bytes, row->used - 1).text);
    else
        TRY(records_add(row->records, text, size, label, label_size, place));
    row->used = row->fields = 0;
    return STATUS_OK;
}

static void row_free(struct row *row) {
    free(row->bytes);
    free(row->ends);
}

/* ---- csv ---- */

static void csv_field(void *bytes, size_t size, void *data) {
    struct row *row = data;
    if (!row->status) row->status = row_field(row, bytes, (int64_t)size);
}

static void csv_row(int terminator, void *data) {
    (void)terminator;
    struct row *row = data;
    if (row->status) return;
    if (++row->ended > 1)
        row->status =
            status_fail(STATUS_DATA, "%s:%" PRId64 ": expected LF or CR LF at the end of a line, found CR alone",
                        row->records->path, row->line);
    if (!row->status) row->status = row_end(row);
}

/* Line by line, so that each record knows its own. A line may end none (line feeds within quotes, blank), or one. */
static enum status csv_lines(struct row *row, struct csv_parser *parser, const char *bytes, int64_t size) {
    const char *path = row->records->path;
    bool open = false; /* a record goes on */
    for (int64_t at = 0, line = 1, n; at < size; at += n, ++line) {
        const char *feed = memchr(bytes + at, '\n', (size_t)(size - at)), *rest = bytes + at;
        n = feed ? feed + 1 - rest : size - at;
        int64_t left = n;
        if (!open) row->line = line;
        row->ended = 0;
        if (csv_parse(parser, rest, (size_t)n, csv_field, csv_row, row) != (size_t)n && !row->status) {
            if (csv_error(parser) != CSV_EPARSE) return status_fail(STATUS_INTERNAL, "%s: out of memory", path);
            return status_fail(STATUS_DATA,
                               "%s:%" PRId64 ": expected a quote at the ends of a field only, or doubled, "
                               "found one elsewhere",
                               path, line);
        }
        TRY(row->status);
        trim(&rest, &left);
        open = row->ended == 0 && (open || left > 0);
    }
    if (csv_fini(parser, csv_field, csv_row, row) && !row->status)
        return status_fail(STATUS_DATA, "%s:%" PRId64 ": expected a closing quote, found the end of the file", path,
                           row->line);
    return row->status;
}

enum status records_csv(struct records *records, const char *bytes, int64_t size, const struct config *config) {
    struct csv_parser parser;
    struct row row = {.records = records, .config = config};
    if (csv_init(&parser, CSV_STRICT | CSV_STRICT_FINI)) return status_fail(STATUS_INTERNAL, "cannot start libcsv");
    enum status status = csv_lines(&row, &parser, bytes, size);
    csv_free(&parser);
    row_free(&row);
    return status;
}

/* ---- tsv ---- */

static enum status tsv_line(struct row *row, const char *line, const char *end) {
    if (memchr(line, '\r', (size_t)(end - line)))
        return status_fail(STATUS_DATA, "%s:%" PRId64 ": expected LF or CR LF at the end of a line, found CR alone",
                           row->records->path, row->line);
    const char *tab;
    do {
        tab = memchr(line, '\t', (size_t)(end - line));
        TRY(row_field(row, line, (tab ? tab : end) - line));
        if (tab) line = tab + 1;
    } while (tab);
    return row_end(row);
}

enum status records_tsv(struct records *records, const char *bytes, int64_t size, const struct config *config) {
    struct row row = {.records = records, .config = config};
    enum status status = STATUS_OK;
    for (const char *line = bytes, *stop = bytes + size, *next; line < stop && !status; line = next) {
        const char *feed = memchr(line, '\n', (size_t)(stop - line)), *end = feed ? feed : stop;
        next = feed ? feed + 1 : stop;
        ++row.line;
        if (end > line && end[-1] == '\r') --end;
        if (end > line) status = tsv_line(&row, line, end);
    }
    row_free(&row);
    return status;
}
