#include "base/device.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/log.h"

/* Straight from the kernel, so that what is given back is given back, and in large pages where there are any; a child
 * process (store/h5.h) does without it, so that none is copied. */
static void *cpu_allocate(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    madvise(memory, bytes, MADV_HUGEPAGE);
    madvise(memory, bytes, MADV_DONTFORK);
    return memory;
}

static void cpu_release(void *memory, size_t bytes) { munmap(memory, bytes); }

static void cpu_set(void *at, int byte, size_t bytes) { memset(at, byte, bytes); }

static void cpu_copy(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

static struct device_mark cpu_mark(enum device_queue queue) {
    (void)queue;
    return (struct device_mark){NULL};
}

static void cpu_await(enum device_queue queue, struct device_mark mark) { (void)queue, (void)mark; }

static void cpu_finish(struct device_mark mark) { (void)mark; }

static void *cpu_stream(enum device_queue queue) {
    (void)queue;
    return NULL;
}

static void cpu_memory(size_t *free_bytes, size_t *total) { *free_bytes = *total = 0; }

/* Nothing is pending: the time is that of the call. */
static struct device_mark cpu_stamp(enum device_queue queue) {
    static double ring[256];
    static unsigned taken;
    double *at = &ring[taken++ % 256];
    (void)queue;
    *at = clock_seconds();
    return (struct device_mark){at};
}

static double cpu_elapsed(struct device_mark from, struct device_mark to) {
    return *(double *)to.event - *(double *)from.event;
}

const struct device device_cpu = {
    .name = "cpu",
    .is_host = true,
    .allocate = cpu_allocate,
    .release = cpu_release,
    .allocate_pinned = cpu_allocate,
    .release_pinned = cpu_release,
    .set = cpu_set,
    .copy = cpu_copy,
    .upload = cpu_copy,
    .fetch = cpu_copy,
    .download = cpu_copy,
    .mark = cpu_mark,
    .await = cpu_await,
    .finish = cpu_finish,
    .stream = cpu_stream,
    .memory = cpu_memory,
    .stamp = cpu_stamp,
    .elapsed = cpu_elapsed,
};

const struct device *device = &device_cpu;
void (*device_while_waiting)(double seconds);

void device_finish_all(void) {
    for (int queue = 0; queue < DEVICE_QUEUES; ++queue) device->finish(device->mark((enum device_queue)queue));
}

const void *device_view(const void *at, size_t bytes) {
    if (device->is_host) return at;
    void *view = malloc(bytes ? bytes : 1);
    if (!view) FATAL("out of memory: %zu MiB of the device's memory, seen by the host", bytes >> 20);
    device->download(view, at, bytes);
    return view;
}

void device_view_close(const void *view, const void *at) {
    if (view != at) free((void *)view);
}

void *device_zeros(size_t bytes, const char *what) {
    bytes = bytes ? bytes : 1;
    void *memory = device->allocate(bytes);
    size_t left, total;
    device->memory(&left, &total);
    if (!memory)
        FATAL("out of %s memory: %s needs %zu MiB, %zu of %zu MiB are free", device->name, what, bytes >> 20,
              left >> 20, total >> 20);
    device->set(memory, 0, bytes);
    return memory;
}

void *device_edit(void *at, size_t bytes) { return (void *)device_view(at, bytes); }

void device_edit_close(void *edited, void *at, size_t bytes) {
    if (edited == at) return;
    device->upload(at, edited, bytes);
    free(edited);
}
