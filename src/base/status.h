/* Errors of configuration, data and checkpoints: the first function that knows the error says it, the others pass it
 * on. */
#ifndef VQMOE_STATUS_H
#define VQMOE_STATUS_H

/* Also the exit codes of the program. */
enum status {
    STATUS_OK = 0,
    STATUS_INTERNAL = 1,   /* a bug, or what the system does not give: memory, a process, a file's bytes */
    STATUS_CONFIG = 2,     /* command line or configuration */
    STATUS_DATA = 3,       /* data missing, too short, malformed */
    STATUS_CHECKPOINT = 4, /* checkpoint missing, foreign, damaged, of another shape */
    STATUS_WRITE = 5,      /* cannot write */
    STATUS_NOT_FINITE = 6, /* loss is NaN or infinite */
    STATUS_PEER = 7,       /* a peer is lost or too late */
    STATUS_REQUEUE = 85,   /* no error: saved as asked (signal, train.max_minutes), wants to be started again */
};

/* Records one line that names the file, the key, what was expected and what was found; returns status. A message
 * already recorded is kept: the first one knows best. */
enum status status_fail(enum status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Passes an error on to the caller. */
#define TRY(call) \
    do { \
        enum status try_status = (call); \
        if (try_status) return try_status; \
    } while (0)

/* The recorded line, or "" . Owned by this module, valid until status_clear. */
const char *status_message(void);
void status_clear(void);

#endif
