#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

static char message[1024];

enum status status_fail(enum status status, const char *format, ...) {
    if (message[0]) return status;
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return status;
}

const char *status_message(void) { return message; }

void status_clear(void) { message[0] = '\0'; }
