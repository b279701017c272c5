/* Clocks, and messages between the ranks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/doctor.h"

static double time_of_day(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* All ranks look right after a barrier, which is good to the latency of a message. */
static void check_clocks(struct doctor *doctor) {
    struct finding finding = {0};
    comm_barrier(doctor->world);
    double here = time_of_day(), first = here;
    comm_broadcast(doctor->world, &first, sizeof first, 0);
    double apart = fabs(here - first), most = apart;
    comm_allreduce(doctor->world, &most, 1, COMM_DOUBLE, COMM_MAX);
    if (apart > 1)
        finding_set(&finding, LEVEL_HINT, "%.1f s from rank 0's: logs cannot be compared; run chrony or ntpd", apart);
    else
        finding_set(&finding, LEVEL_PASS, "at most %.4f s apart", most);
    doctor_report(doctor, "clocks", &finding);
}

static void check_latency(struct doctor *doctor) {
    enum { TIMES = 50 };
    struct finding finding = {0};
    int64_t value = 0;
    comm_barrier(doctor->world);
    double from = clock_seconds();
    for (int i = 0; i < TIMES; ++i) comm_allreduce(doctor->world, &value, 1, COMM_INT64, COMM_SUM);
    double seconds = (clock_seconds() - from) / TIMES;
    comm_allreduce(doctor->world, &seconds, 1, COMM_DOUBLE, COMM_MAX);
    if (doctor->world->size == 1)
        finding_set(&finding, LEVEL_PASS, "one rank alone");
    else if (seconds > 2e-3)
        finding_set(&finding, LEVEL_HINT, "%.0f us for a sum of 8 bytes: more ranks than cores, or a slow network",
                    1e6 * seconds);
    else
        finding_set(&finding, LEVEL_PASS, "%.0f us for a sum of 8 bytes", 1e6 * seconds);
    doctor_report(doctor, "latency", &finding);
}

/* Seconds of an exchange in which each rank gives every rank `rows` rows of row_bytes. */
static double exchange(struct comm *world, char *out, const char *in, int64_t rows, int64_t row_bytes) {
    size_t size = (size_t)world->size;
    int64_t *numbers = malloc(2 * size * sizeof *numbers);
    int *ones = malloc(size * sizeof *ones);
    if (!numbers || !ones) FATAL("out of memory");
    for (size_t p = 0; p < size; ++p) {
        ones[p] = 1;
        numbers[p] = (int64_t)p * rows;
        numbers[size + p] = rows;
    }
    struct comm_blocks blocks = {.per_peer = ones, .offset = numbers, .count = numbers + size};
    comm_barrier(world);
    double from = clock_seconds();
    comm_exchange_rows(world, QUEUE_DISPATCH, out, in, row_bytes, &blocks, &blocks);
    double seconds = clock_seconds() - from;
    free(numbers);
    free(ones);
    return seconds;
}

static void check_bandwidth(struct doctor *doctor) {
    enum { ROW = 4096, ROWS = (64 << 20) / ROW };
    struct comm *world = doctor->world;
    struct finding finding = {0};
    int64_t rows = ROWS / world->size > 0 ? ROWS / world->size : 1, bytes = rows * ROW * world->size;
    char *memory = malloc(2 * (size_t)bytes);
    if (!memory) FATAL("out of memory");
    memset(memory, 1, 2 * (size_t)bytes);
    exchange(world, memory, memory + bytes, rows, ROW); /* connections are made at the first */
    double seconds = exchange(world, memory, memory + bytes, rows, ROW);
    free(memory);
    comm_allreduce(world, &seconds, 1, COMM_DOUBLE, COMM_MAX);
    double rate = (double)(bytes - rows * ROW) / seconds / 1e9;
    if (world->size == 1)
        finding_set(&finding, LEVEL_PASS, "one rank alone");
    else if (rate < 0.2)
        finding_set(&finding, LEVEL_HINT, "%.2f GB/s from each rank to the others (64 MiB): is the fast network used?",
                    rate);
    else
        finding_set(&finding, LEVEL_PASS, "%.2f GB/s from each rank to the others (64 MiB)", rate);
    doctor_report(doctor, "bandwidth", &finding);
}

void doctor_network(struct doctor *doctor) {
    check_clocks(doctor);
    check_latency(doctor);
    check_bandwidth(doctor);
}
