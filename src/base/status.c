#include "base/status.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

static char message[1024];
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER; /* any thread may be the first to fail */

enum status status_fail(enum status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&guard);
    if (!message[0]) vsnprintf(message, sizeof message, format, args);
    pthread_mutex_unlock(&guard);
    va_end(args);
    return status;
}

const char *status_message(void) { return message; }

void status_clear(void) { message[0] = '\0'; }
