/* Where the model's memory lives, and the queues that its work goes through. Two kinds of memory: the host's, which
 * every part of the program reads and writes, and the device's, which operations (kernels/ops.h) and the exchange of
 * rows (comm/comm.h) alone touch. On the CPU both are the same, and nothing is ever pending.
 *
 * Work is queued in order; what depends on work of another queue says so: `await(queue, mark(other))`. Operations go
 * to QUEUE_COMPUTE. The host goes on at once; it waits by `finish`. */
#ifndef VQMOE_DEVICE_H
#define VQMOE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

enum device_queue {
    QUEUE_COMPUTE,
    QUEUE_DISPATCH, /* rows on their way */
    QUEUE_REDUCE,   /* gradients on their way */
    DEVICE_QUEUES
};

/* A point of a queue: all that was queued before it. Good until 256 more were taken. */
struct device_mark {
    void *event;
};

struct device {
    const char *name; /* "cpu", "cuda" */
    bool is_host;     /* its memory is the host's */
    /* 256-byte aligned; NULL where there is not enough. Never within a step whose shapes are warm. */
    void *(*allocate)(size_t bytes);
    void (*release)(void *memory, size_t bytes);
    /* Host memory that the device reads and writes by itself; NULL where there is not enough. */
    void *(*allocate_pinned)(size_t bytes);
    void (*release_pinned)(void *memory, size_t bytes);
    /* Queued on QUEUE_COMPUTE. */
    void (*set)(void *at, int byte, size_t bytes);
    void (*copy)(void *to, const void *from, size_t bytes);
    /* From the host; ordinary memory may be reused on return, pinned memory when the queue has come so far. */
    void (*upload)(void *to, const void *from, size_t bytes);
    /* To pinned memory, which holds it when the queue has come so far. */
    void (*fetch)(void *to, const void *from, size_t bytes);
    /* To any host memory; waits. */
    void (*download)(void *to, const void *from, size_t bytes);
    struct device_mark (*mark)(enum device_queue queue);
    /* What is queued from now on starts after the mark. */
    void (*await)(enum device_queue queue, struct device_mark mark);
    /* The host waits. */
    void (*finish)(struct device_mark mark);
    /* The cudaStream_t behind a queue; NULL on the CPU. */
    void *(*stream)(enum device_queue queue);
    /* Bytes free now and in all; 0, 0 where nobody knows. */
    void (*memory)(size_t *free, size_t *total);
    /* A mark that knows its time, which a plain one does without to be cheap. Good until 256 more of them were taken.
     */
    struct device_mark (*stamp)(enum device_queue queue);
    /* Seconds from one stamp to another of the same queue, both passed. */
    double (*elapsed)(struct device_mark from, struct device_mark to);
};

/* Chosen once when the program starts; the CPU's until then. */
extern const struct device *device;
extern const struct device device_cpu;

/* The host waits for all queues. */
void device_finish_all(void);

/* What the host does now and then while it waits (comm looks for lost peers); NULL: nothing. seconds: waited so far. */
extern void (*device_while_waiting)(double seconds);

/* Device memory seen by the host: the memory itself where it is the host's, else a copy of it, which the host frees by
 * view_close. Waits. */
const void *device_view(const void *at, size_t bytes);
void device_view_close(const void *view, const void *at);

/* Memory that lives as long as the model: of zeros; ends the program where there is not enough. */
void *device_zeros(size_t bytes, const char *what);

/* The host changes device memory: device_edit is device_view, device_edit_close puts the values back. */
void *device_edit(void *at, size_t bytes);
void device_edit_close(void *edited, void *at, size_t bytes);

#endif
