/* What the queues see of a step in mode joint on 2 ranks: the rows of one path fly while the experts compute on those
 * of the other, and a layer's gradients are summed while the one below goes backward. The order in which work is queued
 * and waited for is noted by a device, a plane and operations that stand before the real ones. */
#include <mpi.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "tests/kinds/toy.h"

/* t: numbers of tokens leave, x: rows leave, l: the compute queue waits for some, E, B: a product of the experts,
 * forward or backward, r: gradients leave, w: the compute queue waits for gradients. */
static const char forward[] = "txxllEExlEExll", backward[] = "xxlBBxlBBxll";

static char seen[1024];
static struct device_mark of_queue[DEVICE_QUEUES];
static const struct ops *plain;
static const struct comm_plane *staged;

static void note(char what) {
    size_t n = strlen(seen);
    if (n + 1 < sizeof seen) seen[n] = what;
}

static struct device_mark noting_mark(enum device_queue queue) {
    static char names[DEVICE_QUEUES];
    of_queue[queue].event = &names[queue];
    return of_queue[queue];
}

static void noting_await(enum device_queue queue, struct device_mark mark) {
    if (queue != QUEUE_COMPUTE) return;
    if (mark.event == of_queue[QUEUE_DISPATCH].event) note('l');
    if (mark.event == of_queue[QUEUE_REDUCE].event) note('w');
}

static void noting_exchange(struct comm *comm, enum device_queue queue, void *out, const void *in, int64_t row_bytes,
                            const struct comm_blocks *receive, const struct comm_blocks *send) {
    note(queue != QUEUE_DISPATCH ? '?' : row_bytes == sizeof(int64_t) ? 't' : 'x');
    comm->ops->exchange_rows(comm, out, in, row_bytes, receive, send);
}

static void noting_allreduce(struct comm *comm, enum device_queue queue, void *data, int64_t count,
                             enum comm_type type) {
    if (queue == QUEUE_REDUCE) note('r');
    comm->ops->allreduce(comm, data, count, type, COMM_SUM);
}

static void noting_forward(real *out, const real *in, const real *weight, const real *bias, const struct groups *groups,
                           int64_t O, int64_t I) {
    note('E');
    plain->grouped_linear_forward(out, in, weight, bias, groups, O, I);
}

static void noting_backward(real *din, real *dweight, real *dbias, const real *dout, const real *in, const real *weight,
                            const struct groups *groups, int64_t O, int64_t I) {
    note('B');
    plain->grouped_linear_backward(din, dweight, dbias, dout, in, weight, groups, O, I);
}

int main(int argc, char **argv) {
    struct variant variant = variant_of("joint");
    struct toy toy;
    struct history history = {0};
    char expected[256] = "";
    MPI_Init(&argc, &argv);
    struct comm *world = comm_mpi_new();
    log_init(world->rank);
    ops_init_cpu(1, PRECISION_FP32);
    comm_limit(60);
    comm_use_staging(world);
    staged = world->plane;
    struct device noting_device = *device;
    struct ops noting_ops = *ops;
    struct comm_plane noting_plane = *staged;
    noting_device.mark = noting_mark, noting_device.await = noting_await;
    noting_ops.grouped_linear_forward = noting_forward, noting_ops.grouped_linear_backward = noting_backward;
    noting_plane.allreduce = noting_allreduce, noting_plane.exchange_rows = noting_exchange;
    plain = ops;

    if (toy_init(&toy, &variant, world)) FATAL("%s", status_message());
    toy_start(&toy);
    device = &noting_device, ops = &noting_ops;
    toy.model.world->plane = toy.model.group->plane = &noting_plane;
    toy_gradients(&toy, &history, 0, true);
    device = &device_cpu, ops = plain;
    toy.model.world->plane = toy.model.group->plane = staged;

    for (int i = 0; i < LAYERS; ++i) strcat(expected, forward);
    for (int i = 0; i < LAYERS; ++i) strcat(strcat(expected, backward), "r");
    strcat(expected, "rw"); /* embeddings */
    if (strcmp(seen, expected) != 0 && world->rank == 0)
        printf("a step's queues saw\n%s, expected\n%s\n", seen, expected);
    int failed = strcmp(seen, expected) != 0;
    history_free(&history);
    toy_free(&toy);
    comm_free(world);
    MPI_Finalize();
    return failed;
}
