/* What each node has. */
#include <dirent.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/doctor.h"
#include "kernels/ops.h"
#include "train/threads.h"

static const double MiB = 1 << 20, GiB = 1 << 30;

static void check_cores(struct doctor *doctor) {
    struct finding finding = {0};
    struct cores cores = threads_cores(doctor->world);
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    const char *bind = getenv("OMP_PROC_BIND");
    if (bind && strcmp(bind, "false") != 0 && doctor->node->size > 1 && cores.own == cores.node)
        finding_set(&finding, LEVEL_HINT,
                    "OMP_PROC_BIND=%s binds the threads of all ranks of a node to the same cores: unset it", bind);
    else if (cores.node < doctor->node->size)
        finding_set(&finding, LEVEL_HINT, "%d for %d ranks of a node, which take turns: start fewer ranks", cores.node,
                    doctor->node->size);
    else if (cores.node * 4 <= processors)
        finding_set(
            &finding, LEVEL_HINT,
            "the ranks of a node are bound to %d cores of its %ld processors: start them by launch/mpirun.sh, or "
            "ask Slurm for more with --cpus-per-task",
            cores.node, processors);
    else
        finding_set(&finding, LEVEL_PASS, "%d for %d ranks of a node, %d threads a rank", cores.node,
                    doctor->node->size, threads_choose(doctor->world, 0));
    doctor_report(doctor, "cores", &finding);
}

static bool has_driver(void) { return access("/dev/nvidiactl", F_OK) == 0; }

static void check_gpus(struct doctor *doctor) {
    struct finding finding = {0};
    const char *reason = "";
    int gpus = ops_cuda_devices(&reason), ranks = doctor->node->size;
    int64_t most = gpus;
    comm_allreduce(doctor->world, &most, 1, COMM_INT64, COMM_MAX);
    if (!gpus && (has_driver() || most))
        finding_set(&finding, most ? LEVEL_FAIL : LEVEL_HINT,
                    "none that will do here (%s): all ranks would use the CPU", reason);
    else if (!gpus)
        finding_set(&finding, LEVEL_PASS, "none (%s): ranks use the CPU", reason);
    else if (gpus < most && gpus < ranks)
        finding_set(&finding, LEVEL_FAIL, "%d of up to %d of a node, for %d ranks", gpus, (int)most, ranks);
    else if (gpus > 1 && ranks != gpus)
        finding_set(&finding, LEVEL_HINT, "%d for %d ranks of a node: start one rank for each", gpus, ranks);
    else
        finding_set(&finding, LEVEL_PASS, "%d for %d ranks of a node", gpus, ranks);
    if (gpus && finding.level == LEVEL_PASS && !comm_nccl_version()[0] && doctor->world->size > 1)
        finding_set(&finding, LEVEL_HINT, "%d, but this program has no NCCL: rows go through host memory", gpus);
    doctor_report(doctor, "GPUs", &finding);
}

static bool has_infiniband(void) {
    DIR *folder = opendir("/sys/class/infiniband");
    if (!folder) return false;
    int entries = 0;
    for (const struct dirent *entry; (entry = readdir(folder));) entries += entry->d_name[0] != '.';
    closedir(folder);
    return entries > 0;
}

static void check_locked_memory(struct doctor *doctor) {
    struct finding finding = {0};
    struct rlimit limit = {0};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    bool needed = has_infiniband() || has_driver();
    if (limit.rlim_cur == RLIM_INFINITY)
        finding_set(&finding, LEVEL_PASS, "unlimited");
    else if (needed)
        finding_set(&finding, LEVEL_HINT,
                    "%.0f MiB, too little for InfiniBand and GPUs: memlock unlimited in /etc/security/limits.conf and "
                    "in slurmd's service",
                    (double)limit.rlim_cur / MiB);
    else
        finding_set(&finding, LEVEL_PASS, "%.0f MiB (no InfiniBand and no GPU here that wants more)",
                    (double)limit.rlim_cur / MiB);
    doctor_report(doctor, "locked memory", &finding);
}

static void check_shared_memory(struct doctor *doctor) {
    struct finding finding = {0};
    struct statvfs info = {0};
    double wanted = 64 * MiB * doctor->node->size; /* Open MPI's segments, NCCL's buffers */
    if (statvfs("/dev/shm", &info))
        finding_set(&finding, LEVEL_HINT, "no /dev/shm: ranks of a node may be slow or not start");
    else if ((double)info.f_bavail * (double)info.f_frsize < wanted)
        finding_set(&finding, LEVEL_HINT,
                    "%.0f MiB free in /dev/shm for %d ranks of a node: remove what jobs have left there, or in a "
                    "container use --shm-size",
                    (double)info.f_bavail * (double)info.f_frsize / MiB, doctor->node->size);
    else
        finding_set(&finding, LEVEL_PASS, "%.1f GiB free in /dev/shm",
                    (double)info.f_bavail * (double)info.f_frsize / GiB);
    doctor_report(doctor, "shared memory", &finding);
}

/* Each start of MPI asks for it, and waits for the DNS where nobody knows. */
static void check_host_name(struct doctor *doctor) {
    struct finding finding = {0};
    char name[256] = "";
    struct addrinfo *found = NULL;
    gethostname(name, sizeof name - 1);
    double from = clock_seconds();
    int error = getaddrinfo(name, NULL, NULL, &found);
    double seconds = clock_seconds() - from;
    if (error)
        finding_set(&finding, LEVEL_HINT,
                    "%s is not known by that name (%s), after %.1f s: a line for it in /etc/hosts", name,
                    gai_strerror(error), seconds);
    else if (seconds > 1)
        finding_set(&finding, LEVEL_HINT, "%s took %.1f s to look up, at each start: a line for it in /etc/hosts", name,
                    seconds);
    else
        finding_set(&finding, LEVEL_PASS, "%s, found in %.3f s", name, seconds);
    if (found) freeaddrinfo(found);
    doctor_report(doctor, "host name", &finding);
}

void doctor_machine(struct doctor *doctor) {
    check_cores(doctor);
    check_gpus(doctor);
    check_locked_memory(doctor);
    check_shared_memory(doctor);
    check_host_name(doctor);
}
