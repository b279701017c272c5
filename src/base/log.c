#include "base/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/status.h"

static int log_rank;
static bool line_open; /* a progress line stands without its newline */
static void (*on_fatal)(void);

void log_init(int rank) { log_rank = rank; }

/* Under mpirun every rank's stdout is a terminal of mpirun's own, whatever the user looks at: there it must be said. */
static bool is_terminal(void) {
    const char *said = getenv("VQMOE_PROGRESS");
    if (said) return *said == '1';
    return isatty(STDOUT_FILENO) && !getenv("OMPI_COMM_WORLD_SIZE");
}

void log_on_fatal(void (*handler)(void)) { on_fatal = handler; }

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

void log_fatal(const char *file, int line, const char *format, ...) {
    fflush(stdout);
    va_list args;
    va_start(args, format);
    fprintf(stderr, "vqmoe: rank %d: %s:%d: ", log_rank, file, line);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    if (on_fatal) on_fatal();
    _exit(STATUS_INTERNAL);
}
