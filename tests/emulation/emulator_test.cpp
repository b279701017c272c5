/* The emulation finds what is planted, and nothing in the right twin. Each case is a process of its own, this program
 * with the case's name; without one it runs all cases of its flavour: plain, address or thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <string>

#include "emulation/planted.h"

struct trial {
    const char *flavour, *name, *environment, *expected; /* in the output */
};

static const trial trials[] = {
    {"plain", "neighbours", "VQMOE_EMULATION_ORDER=forward", "\n0 wrong"},
    {"plain", "neighbours", "VQMOE_EMULATION_ORDER=reverse", "\n0 wrong"},
    {"plain", "neighbours", "VQMOE_EMULATION_ORDER=random:3", "\n0 wrong"},
    {"plain", "neighbours", "VQMOE_EMULATION_ORDER=greedy", "\n0 wrong"},
    {"plain", "neighbours-no-barrier", "VQMOE_EMULATION_ORDER=forward", "\n0 wrong"}, /* one order is not enough */
    {"plain", "neighbours-no-barrier", "VQMOE_EMULATION_ORDER=reverse", "\n63 wrong"},
    {"plain", "partners", "VQMOE_EMULATION_ORDER=forward", "\n0 wrong"},
    {"plain", "partners-no-barrier", "VQMOE_EMULATION_ORDER=forward", "\n32 wrong"},
    {"plain", "places", "", "\n0 wrong"},
    {"plain", "bounds", "", "\n0 wrong"},
    {"plain", "bounds-beyond", "", "touched byte 256 of an allocation of 256 bytes"},
    {"plain", "dynamic", "", "\n0 wrong"},
    {"plain", "barrier", "", "\n0 wrong"},
    {"plain", "barrier-ended", "", "kernel meet_at_barrier, block (0, 0, 0), thread (32, 0, 0): divergent"},
    {"plain", "barrier-ended", "VQMOE_EMULATION_ORDER=reverse", "divergent barrier: 32 of the block's 64 threads"},
    {"plain", "barrier-elsewhere", "", "divergent barrier: 32 threads wait at "},
    {"plain", "mask", "", "\n0 wrong"},
    {"plain", "mask-halves", "", "\n0 wrong"},
    {"plain", "mask-of-others", "", "wrong shuffle mask: 0000ffff does not name lane 16"},
    {"plain", "mask-of-two-minds", "", "wrong shuffle mask"},
    {"plain", "mask-of-the-ended", "", "lane 24 has ended, others of the mask ffffffff wait"},
    {"plain", "mask-of-the-ended", "VQMOE_EMULATION_ORDER=reverse", "the lanes ff000000 have ended"},
    {"plain", "mask-beyond", "", "names lanes beyond the block"},
    {"plain", "shuffles", "VQMOE_EMULATION_ORDER=forward", "\n0 wrong"},
    {"plain", "shuffles", "VQMOE_EMULATION_ORDER=reverse", "\n0 wrong"},
    {"plain", "shuffles", "VQMOE_EMULATION_ORDER=random", "\n0 wrong"},
    {"plain", "shuffles", "VQMOE_EMULATION_ORDER=greedy", "\n0 wrong"},
    {"plain", "written", "", "\n0 wrong"},
    {"plain", "never-written", "", "\n64 wrong"},
    {"plain", "wait", "", "\n0 wrong"},
    {"plain", "no-wait", "", "\n64 wrong"},
    {"plain", "no-wait", "VQMOE_EMULATION_STREAMS=eager", "\n0 wrong"}, /* hidden */
    {"plain", "pinned", "", "\n0 wrong"},
    {"plain", "pinned-reused", "", "\n64 wrong"},
    {"plain", "host-copies", "VQMOE_EMULATION_PROTECT=1", "\n0 wrong"},
    {"plain", "host-touches", "", "\n0 wrong"}, /* hidden */
    {"plain", "host-touches", "VQMOE_EMULATION_PROTECT=1", "host touched device memory at "},
    {"plain", "device-pointer", "VQMOE_EMULATION_PROTECT=1", "\n0 wrong"},
    {"plain", "host-pointer", "VQMOE_EMULATION_PROTECT=1", "kernel double_all: argument 2 points to ordinary host"},
    {"plain", "memory", "VQMOE_EMULATION_MEMORY=17", "\n0 wrong, 17 MiB"},
    {"plain", "devices", "", "\n8 devices, error 0"},
    {"plain", "devices", "VQMOE_EMULATION_GPUS=0", "\n0 devices, error 100"},
    {"plain", "devices", "VQMOE_EMULATION_GPUS=none", "\n-7 devices, error 35"},
    {"plain", "gemm", "", "\n0 wrong"},
    {"plain", "gemm-bf16", "", "\n0 wrong"},
    {"plain", "gemm-strides", "", "\n0 wrong"},
    {"plain", "gemm-pointers", "", "\n0 wrong"},
    {"address", "neighbours", "", "\n0 wrong"},
    {"address", "shuffles", "VQMOE_EMULATION_ORDER=random", "\n0 wrong"},
    {"address", "bounds", "", "\n0 wrong"},
    {"address", "bounds-beyond", "", "AddressSanitizer: use-after-poison"},
    {"address", "shared-bounds", "", "\n0 wrong"},
    {"address", "shared-bounds-beyond", "", "AddressSanitizer: use-after-poison"},
    {"address", "dynamic", "", "\n0 wrong"},
    {"address", "dynamic-beyond", "", "AddressSanitizer: use-after-poison"},
    {"address", "host-touches", "VQMOE_EMULATION_PROTECT=1", "host touched device memory at "},
    {"thread", "neighbours", "", "\n0 wrong"},
    {"thread", "neighbours-no-barrier", "", "ThreadSanitizer: data race"},
    {"thread", "partners", "", "\n0 wrong"},
    {"thread", "partners-no-barrier", "", "ThreadSanitizer: data race"},
    {"thread", "shuffles", "", "\n0 wrong"},
    {"thread", "dynamic", "", "\n0 wrong"},
    {"thread", "places", "", "\n0 wrong"},
    {"thread", "places-shared", "", "ThreadSanitizer: data race"},
};

static std::string output_of(const char *program, const trial &t) {
    std::string command = std::string("exec 2>&1; echo; TSAN_OPTIONS=atexit_sleep_ms=0 ") + t.environment + " '" +
                          program + "' " + t.name;
    std::string output;
    char part[4096];
    FILE *pipe = popen(command.c_str(), "r");
    if (!pipe) return "";
    for (size_t got; (got = fread(part, 1, sizeof part, pipe)) > 0;) output.append(part, got);
    pclose(pipe);
    return output;
}

int main(int count, char **arguments) {
    const char *flavour = count > 1 ? arguments[1] : "";
    bool known = strcmp(flavour, "plain") == 0 || strcmp(flavour, "address") == 0 || strcmp(flavour, "thread") == 0;
    int failed = 0, run = 0;
    if (count == 2 && !known) return planted_run(flavour);
    if (count != 2) {
        fprintf(stderr, "usage: %s plain|address|thread|CASE\n", arguments[0]);
        return 2;
    }
    for (const trial &t : trials) {
        if (strcmp(t.flavour, flavour) != 0) continue;
        std::string output = output_of(arguments[0], t);
        bool reported = output.find("Sanitizer: ") != std::string::npos;
        if (output.find("unexpected memory mapping") != std::string::npos) {
            printf("ThreadSanitizer does not work here: skipped\n");
            return 77;
        }
        run++;
        if (output.find(t.expected) != std::string::npos && reported == (strstr(t.expected, "Sanitizer: ") != nullptr))
            continue;
        failed++;
        printf("%s %s: expected \"%s\", found:%s\n", t.environment, t.name, t.expected, output.c_str());
    }
    printf("%d cases, %d failed\n", run, failed);
    return failed > 0;
}
