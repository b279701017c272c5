/* Lines for people: progress on stdout, warnings on stderr, by rank 0 alone; a file per rank where there is a run
 * folder. */
#ifndef VQMOE_LOG_H
#define VQMOE_LOG_H

#include <stdint.h>

#include "base/status.h"

void log_init(int rank); /* before the first line; rank 0 alone prints */
/* From now on the lines also go to folder/rank-NNNN.log, with the time: all of rank 0, of others what they warn of or
 * fail with; a rank with nothing to say has no file. Appends. STATUS_WRITE. */
enum status log_open(const char *folder);

void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));    /* stdout, rank 0 */
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2))); /* stderr, rank 0 */

/* For what one rank alone has seen: stderr, whichever rank this is. */
void log_warning_here(const char *format, ...) __attribute__((format(printf, 1, 2)));

void log_error(const char *message); /* stderr, one line */

/* Rewrites the current line on a terminal, or as VQMOE_PROGRESS=0 or 1 says; prints nothing otherwise. Ended by the
 * next log_info. */
void log_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Where the program is, for the lines of those who end it. */
struct log_spot {
    int64_t step; /* -1: not in a step */
    int layer;    /* -1: in none */
};
void log_place(int64_t step, int layer);
struct log_spot log_placed(void);

/* For kernels and communication: prints rank, place, file and line and ends the whole job; no rank can go on alone. */
void log_fatal(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
void log_fatal_status(enum status status, const char *file, int line, const char *format, ...)
    __attribute__((noreturn, format(printf, 4, 5)));
#define FATAL(...) log_fatal(__FILE__, __LINE__, __VA_ARGS__)
#define FATAL_STATUS(status, ...) log_fatal_status(status, __FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition) ((condition) ? (void)0 : FATAL("violated: %s", #condition))

/* What log_fatal calls last (comm sets it to end the peers too), with the exit code; exits with it if none. Returns the
 * handler before. */
typedef void log_fatal_handler(enum status status);
log_fatal_handler *log_on_fatal(log_fatal_handler *handler);

#endif
