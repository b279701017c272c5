/* Lines for people: progress on stdout, warnings on stderr, by rank 0 alone. */
#ifndef VQMOE_LOG_H
#define VQMOE_LOG_H

#include <stdint.h>

void log_init(int rank); /* before the first line; rank 0 alone prints */

void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));    /* stdout, rank 0 */
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2))); /* stderr, rank 0 */

void log_error(const char *message); /* stderr, one line */

/* Rewrites the current line on a terminal, or as VQMOE_PROGRESS=0 or 1 says; prints nothing otherwise. Ended by the
 * next log_info. */
void log_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Where the program is, for the messages of log_fatal: a step and a layer (-1: none). */
void log_place(int64_t step, int layer);

/* For kernels and communication: prints rank, file and line and ends the whole job; no rank can go on alone. */
void log_fatal(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
#define FATAL(...) log_fatal(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition) ((condition) ? (void)0 : FATAL("violated: %s", #condition))

/* What log_fatal calls last (comm sets it to end the peers too); exits with 1 if none. */
void log_on_fatal(void (*handler)(void));

#endif
