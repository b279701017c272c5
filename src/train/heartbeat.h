/* run.dir/heartbeat/rank-NNNN: one line of JSON of fixed length, rewritten in place at most once a second by the rank
 * itself wherever a phase begins (phase.h), so that a watcher sees which rank stands still, and at what. No collective;
 * errors never end a run. Keys: docs/reliability.md. */
#ifndef VQMOE_HEARTBEAT_H
#define VQMOE_HEARTBEAT_H

#include <stdbool.h>

void heartbeat_start(const char *folder, int rank);
/* done: the run came to its end; else the last line stays. Also where none was started. */
void heartbeat_end(bool done);

#endif
