#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int log_rank;
static struct log_spot place = {-1, -1};
static bool line_open; /* a progress line stands without its newline */
static log_fatal_handler *on_fatal;
static char file_path[1024]; /* "": none */
static FILE *file;           /* NULL until the first line */

void log_init(int rank) {
    log_rank = rank;
    setvbuf(stderr, NULL, _IOLBF, BUFSIZ); /* lines go out whole: all ranks write to the same place */
}

/* Under mpirun every rank's stdout is a terminal of mpirun's own, whatever the user looks at: there it must be said. */
static bool is_terminal(void) {
    const char *said = getenv("VQMOE_PROGRESS");
    if (said) return *said == '1';
    return isatty(STDOUT_FILENO) && !getenv("OMPI_COMM_WORLD_SIZE");
}

log_fatal_handler *log_on_fatal(log_fatal_handler *handler) {
    log_fatal_handler *before = on_fatal;
    on_fatal = handler;
    return before;
}

void log_place(int64_t step, int layer) { place = (struct log_spot){step, layer}; }

struct log_spot log_placed(void) {
    return place;
}

static bool file_ready(void) {
    if (!file && file_path[0]) file = fopen(file_path, "ae");
    return file != NULL;
}

enum status log_open(const char *folder) {
    snprintf(file_path, sizeof file_path, "%s/rank-%04d.log", folder, log_rank);
    if (log_rank != 0 || file_ready()) return STATUS_OK;
    return status_fail(STATUS_WRITE, "%s: cannot write: %s", file_path, strerror(errno));
}

/* A line of the file; where it cannot be written the line is lost, the run is not. */
static void keep(const char *prefix, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
static void keep(const char *prefix, const char *format, va_list args) {
    char now[32] = "";
    time_t seconds = time(NULL);
    struct tm parts;
    if (!file_ready()) return;
    if (localtime_r(&seconds, &parts)) strftime(now, sizeof now, "%F %T ", &parts);
    fprintf(file, "%s%s", now, prefix);
    vfprintf(file, format, args);
    fputc('\n', file);
    fflush(file);
}

static void end_progress(void) {
    if (line_open) fputc('\n', stdout);
    line_open = false;
}

static void print(FILE *out, const char *prefix, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));
static void print(FILE *out, const char *prefix, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    end_progress();
    fflush(stdout);
    fprintf(out, "%s%s", out == stderr ? "vqmoe: " : "", prefix);
    vfprintf(out, format, args);
    fputc('\n', out);
    fflush(out);
    keep(prefix, format, again);
    va_end(again);
}

static void print_line(FILE *out, const char *prefix, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void print_line(FILE *out, const char *prefix, const char *format, ...) {
    va_list args;
    va_start(args, format);
    print(out, prefix, format, args);
    va_end(args);
}

void log_info(const char *format, ...) {
    if (log_rank != 0) return;
    va_list args;
    va_start(args, format);
    print(stdout, "", format, args);
    va_end(args);
}

void log_warning(const char *format, ...) {
    if (log_rank != 0) return;
    va_list args;
    va_start(args, format);
    print(stderr, "warning: ", format, args);
    va_end(args);
}

void log_warning_here(const char *format, ...) {
    va_list args;
    va_start(args, format);
    print(stderr, "warning: ", format, args);
    va_end(args);
}

void log_error(const char *message) { print_line(stderr, "", "%s", message); }

void log_progress(const char *format, ...) {
    if (log_rank != 0 || !is_terminal()) return;
    va_list args;
    va_start(args, format);
    fputs("\r\033[K", stdout);
    vprintf(format, args);
    va_end(args);
    fflush(stdout);
    line_open = true;
}

static void end(enum status status, const char *source, int line, const char *format, va_list args)
    __attribute__((noreturn, format(printf, 4, 0)));
static void end(enum status status, const char *source, int line, const char *format, va_list args) {
    char text[2048], where[64] = "";
    if (place.step >= 0 && place.layer >= 0)
        snprintf(where, sizeof where, "step %" PRId64 ", layer %d: ", place.step, place.layer);
    else if (place.step >= 0)
        snprintf(where, sizeof where, "step %" PRId64 ": ", place.step);
    vsnprintf(text, sizeof text, format, args);
    print_line(stderr, "", "rank %d: %s%s:%d: %s", log_rank, where, source, line, text);
    if (on_fatal) on_fatal(status);
    _exit(status);
}

void log_fatal(const char *source, int line, const char *format, ...) {
    va_list args;
    va_start(args, format);
    end(STATUS_INTERNAL, source, line, format, args);
}

void log_fatal_status(enum status status, const char *source, int line, const char *format, ...) {
    va_list args;
    va_start(args, format);
    end(status, source, line, format, args);
}
