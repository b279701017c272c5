#include "base/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int log_rank;
static struct log_spot place = {-1, -1};
static bool line_open; /* a progress line stands without its newline */
static log_fatal_handler *on_fatal;

void log_init(int rank) { log_rank = rank; }

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

static void end_progress(void) {
    if (line_open) fputc('\n', stdout);
    line_open = false;
}

void log_info(const char *format, ...) {
    if (log_rank != 0) return;
    end_progress();
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

void log_warning(const char *format, ...) {
    if (log_rank != 0) return;
    end_progress();
    fflush(stdout);
    va_list args;
    va_start(args, format);
    fputs("vqmoe: warning: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

void log_error(const char *message) {
    end_progress();
    fflush(stdout);
    fprintf(stderr, "vqmoe: %s\n", message);
}

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

static void end(enum status status, const char *file, int line, const char *format, va_list args)
    __attribute__((noreturn, format(printf, 4, 0)));
static void end(enum status status, const char *file, int line, const char *format, va_list args) {
    char text[2048], where[64] = "";
    if (place.step >= 0 && place.layer >= 0)
        snprintf(where, sizeof where, "step %" PRId64 ", layer %d: ", place.step, place.layer);
    else if (place.step >= 0)
        snprintf(where, sizeof where, "step %" PRId64 ": ", place.step);
    vsnprintf(text, sizeof text, format, args);
    fflush(stdout);
    fprintf(stderr, "vqmoe: rank %d: %s%s:%d: %s\n", log_rank, where, file, line, text);
    if (on_fatal) on_fatal(status);
    _exit(status);
}

void log_fatal(const char *file, int line, const char *format, ...) {
    va_list args;
    va_start(args, format);
    end(STATUS_INTERNAL, file, line, format, args);
}

void log_fatal_status(enum status status, const char *file, int line, const char *format, ...) {
    va_list args;
    va_start(args, format);
    end(status, file, line, format, args);
}
