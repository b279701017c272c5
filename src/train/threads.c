#include "train/threads.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { WORDS = 1024 / 64 }; /* of a processor set */

/* The lowest processor of the core that `cpu` belongs to; itself where the kernel does not say. */
static int core_of(int cpu) {
    char path[96];
    int first = cpu;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "r");
    if (!file) return cpu;
    if (fscanf(file, "%d", &first) != 1) first = cpu;
    fclose(file);
    return first;
}

static int count(const int64_t *cores) {
    int bits = 0;
    for (int i = 0; i < WORDS; ++i) bits += __builtin_popcountll((unsigned long long)cores[i]);
    return bits;
}

struct cores threads_cores(struct comm *world) {
    struct comm *node = comm_split_node(world);
    int64_t own[WORDS] = {0}, joint[WORDS] = {0}, *all = malloc((size_t)node->size * sizeof own);
    if (!all) FATAL("out of memory");
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    for (int cpu = 0; cpu < 1024 && cpu < CPU_SETSIZE; ++cpu) {
        int core = CPU_ISSET(cpu, &set) ? core_of(cpu) : -1;
        if (core >= 0) own[core / 64] |= (int64_t)(1ULL << core % 64);
    }
    comm_allgather(node, all, own, WORDS);
    for (int rank = 0; rank < node->size; ++rank)
        for (int i = 0; i < WORDS; ++i) joint[i] |= all[rank * WORDS + i];
    struct cores cores = {.own = count(own), .node = count(joint), .ranks = node->size};
    free(all);
    comm_free(node);
    return cores;
}

int threads_choose(struct comm *world, int64_t configured) {
    struct cores cores = threads_cores(world);
    if (configured) return (int)configured;
    int share = cores.node / cores.ranks;
    if (share > cores.own) share = cores.own;
    return share > 0 ? share : 1;
}
