#include "cli/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"

enum { LIMIT = 60 }; /* seconds that a rank waits for its peers */

void finding_set(struct finding *finding, enum level level, const char *format, ...) {
    finding->level = level;
    va_list args;
    va_start(args, format);
    vsnprintf(finding->text, sizeof finding->text, format, args);
    va_end(args);
}

void doctor_report(struct doctor *doctor, const char *name, const struct finding *finding) {
    static const char *words[] = {"pass", "hint", "fail"};
    struct comm *world = doctor->world;
    struct finding worst = *finding;
    int64_t level = finding->level;
    comm_allreduce(world, &level, 1, COMM_INT64, COMM_MAX);
    int64_t who = finding->level == (enum level)level ? world->rank : world->size, alike = who < world->size;
    comm_allreduce(world, &who, 1, COMM_INT64, COMM_MIN);
    comm_allreduce(world, &alike, 1, COMM_INT64, COMM_SUM);
    comm_broadcast(world, &worst, sizeof worst, (int)who);
    doctor->count[level]++;
    char ranks[64] = "";
    if (level != LEVEL_PASS && alike > 1)
        snprintf(ranks, sizeof ranks, " (rank %d, %d alike)", (int)who, (int)alike);
    else if (level != LEVEL_PASS && world->size > 1)
        snprintf(ranks, sizeof ranks, " (rank %d)", (int)who);
    log_info("%s  %-16s %s%s", words[level], name, worst.text, ranks);
}

void doctor_report_same(struct doctor *doctor, const char *name, const char *text) {
    struct finding finding = {0};
    char first[sizeof finding.text] = "";
    snprintf(first, sizeof first, "%s", text);
    comm_broadcast(doctor->world, first, sizeof first, 0);
    if (!strncmp(first, text, sizeof first - 1))
        finding_set(&finding, LEVEL_PASS, "%s", text);
    else
        finding_set(&finding, LEVEL_FAIL, "expected what rank 0 has, %.100s, found %.100s: one build for all nodes",
                    first, text);
    doctor_report(doctor, name, &finding);
}

/* The lines of `vqmoe --version`, "HDF5: 1.10.8". */
static void check_versions(struct doctor *doctor) {
    char *text = NULL, *rest, *line;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (!out) FATAL("out of memory");
    cli_print_version(out);
    fclose(out);
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *colon = strstr(line, ": ");
        if (colon) *colon = '\0';
        doctor_report_same(doctor, colon ? line : "program", colon ? colon + 2 : line);
    }
    free(text);
    doctor_report_same(doctor, "MPI threads", comm_thread_level());
    doctor_report_same(doctor, "NCCL", comm_nccl_version()[0] ? comm_nccl_version() : "not built in");
}

static void check_ranks(struct doctor *doctor) {
    struct finding finding = {0};
    int64_t nodes = doctor->node->rank == 0, least = doctor->node->size, most = least;
    comm_allreduce(doctor->world, &nodes, 1, COMM_INT64, COMM_SUM);
    comm_allreduce(doctor->world, &least, 1, COMM_INT64, COMM_MIN);
    comm_allreduce(doctor->world, &most, 1, COMM_INT64, COMM_MAX);
    if (least == most)
        finding_set(&finding, LEVEL_PASS, "%d on %d nodes, %d each", doctor->world->size, (int)nodes, (int)most);
    else
        finding_set(&finding, LEVEL_HINT, "%d on %d nodes, from %d to %d: the fullest node sets the pace",
                    doctor->world->size, (int)nodes, (int)least, (int)most);
    doctor_report(doctor, "ranks", &finding);
}

enum status cli_doctor(const struct arguments *arguments, struct comm *world) {
    struct doctor doctor = {.world = world, .node = comm_split_node(world), .folder = arguments->folder};
    comm_limit(LIMIT);
    check_versions(&doctor);
    check_ranks(&doctor);
    doctor_machine(&doctor);
    doctor_folder(&doctor);
    doctor_network(&doctor);
    comm_free(doctor.node);
    log_info("doctor: %d passed, %d hints, %d failed", doctor.count[LEVEL_PASS], doctor.count[LEVEL_HINT],
             doctor.count[LEVEL_FAIL]);
    return doctor.count[LEVEL_FAIL] ? STATUS_INTERNAL : STATUS_OK;
}
