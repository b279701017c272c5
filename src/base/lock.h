/* A folder that one job writes at a time. */
#ifndef VQMOE_LOCK_H
#define VQMOE_LOCK_H

#include "base/status.h"

/* Locks `path`, a file that is made where there is none, and signs it: *lock is the open file, or -1 where the file
 * system has no locks (a warning). Held by another process of this host: fails at once; of another host, which may be
 * lost: after `patience` seconds. It goes with the process however that ends, or by close(*lock). STATUS_WRITE;
 * STATUS_CONFIG: another holds it; `key` is what names the folder in messages. */
enum status lock_take(int *lock, const char *path, const char *key, double patience);

#endif
