#include "cli/input.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

enum { TURN = 500 /* milliseconds */, CHUNK = 1 << 16 };

static bool is_ready(void) {
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&in, 1, TURN) != 0;
}

static void take(struct input *input) {
    if (input->room < input->size + CHUNK + 1) {
        input->room = 2 * input->size + CHUNK + 1;
        input->bytes = realloc(input->bytes, input->room);
        if (!input->bytes) FATAL("out of memory");
    }
    ssize_t got = read(STDIN_FILENO, input->bytes + input->size, CHUNK);
    if (got < 0 && errno == EINTR)
        got = 0;
    else
        input->end = got <= 0;
    input->size += got > 0 ? (size_t)got : 0;
    input->bytes[input->size] = '\0';
}

void input_more(struct input *input, struct comm *world) {
    int64_t ready = 0, end;
    while (!ready) {
        ready = world->rank == 0 && is_ready();
        comm_broadcast(world, &ready, sizeof ready, 0);
    }
    if (world->rank == 0) take(input);
    end = input->end;
    comm_broadcast(world, &end, sizeof end, 0);
    input->end = end != 0;
}

void input_use(struct input *input, size_t used) {
    input->size -= used;
    memmove(input->bytes, input->bytes + used, input->size + 1);
}

void input_free(struct input *input) {
    free(input->bytes);
    *input = (struct input){0};
}
