/* The child process that HDF5 reads a foreign file in, and its parent. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "store/h5_private.h"

enum { CPU_SECONDS = 30, SECONDS = 120, MOST_BYTES = 1 << 28 /* of an answer */ };
static const rlim_t more_memory = (rlim_t)4 << 30; /* bytes, than the process has already */

/* ---- The child ---- */

/* The softer limit alone: its signals tell what it was. */
static void limit(int resource, rlim_t most) {
    struct rlimit now;
    if (getrlimit(resource, &now)) return;
    if (now.rlim_cur != RLIM_INFINITY && now.rlim_cur < most) return;
    now.rlim_cur = most;
    setrlimit(resource, &now);
}

/* Address space in use: of a process on a GPU many times its memory. */
static rlim_t bytes_mapped(void) {
    char text[64] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0) text[0] = '\0';
    if (fd >= 0) close(fd);
    return (rlim_t)strtoull(text, NULL, 10) * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void limit_all(pid_t parent) {
    const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGXCPU, SIGPIPE},
              requests[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}; /* to the whole job: the parent answers them */
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; ++i) signal(crashes[i], SIG_DFL);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; ++i) signal(requests[i], SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    log_on_fatal(NULL); /* the job goes on */
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_CPU, CPU_SECONDS);
    rlim_t mapped = bytes_mapped();
    if (mapped) limit(RLIMIT_AS, mapped + more_memory);
}

static void send_all(int fd, const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t sent = write(fd, bytes, size);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) _exit(1);
        bytes += sent;
        size -= (size_t)sent;
    }
}

/* Answers 'C' and the contents, or 'E' and what is wrong. */
static void answer(int to, const char *path, pid_t parent) {
    struct h5_contents contents = {0};
    limit_all(parent);
    status_clear();
    FAULT_POINT("archive.child");
    if (h5_walk(path, &contents)) {
        send_all(to, "E", 1);
        send_all(to, status_message(), strlen(status_message()));
    } else {
        size_t bytes;
        char *packed = h5_pack(&contents, &bytes);
        send_all(to, "C", 1);
        send_all(to, packed, bytes);
    }
    _exit(0);
}

/* ---- The parent ---- */

struct answer {
    char *bytes;
    int64_t size, room;
};

/* Until the child closes its end; false: it took too long, or says too much. */
static bool receive(int from, struct answer *answer) {
    double start = clock_seconds();
    for (;;) {
        struct pollfd wait = {.fd = from, .events = POLLIN};
        if (clock_seconds() - start > SECONDS || answer->size > MOST_BYTES) return false;
        if (poll(&wait, 1, 1000) <= 0) continue;
        answer->bytes = h5_grow(answer->bytes, &answer->room, answer->size + 65536, 1);
        ssize_t got = read(from, answer->bytes + answer->size, 65536);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got == 0;
        answer->size += got;
    }
}

/* How the child ended, in words; "" where well. */
static void wait_for(pid_t child, bool in_time, char *how, size_t size) {
    int code = 0;
    how[0] = '\0';
    if (!in_time) kill(child, SIGKILL);
    while (waitpid(child, &code, 0) < 0)
        if (errno != EINTR) return; /* someone has taken it away: its answer tells */
    if (!in_time || (WIFSIGNALED(code) && WTERMSIG(code) == SIGXCPU))
        snprintf(how, size, "one that HDF5 does not come to the end of");
    else if (WIFSIGNALED(code))
        snprintf(how, size, "one that crashes HDF5 (signal %d)", WTERMSIG(code));
    else if (WEXITSTATUS(code))
        snprintf(how, size, "one that ends HDF5 (exit code %d)", WEXITSTATUS(code));
}

/* Of the file's own names anything can be expected. */
static void make_printable(char *text) {
    for (; *text; ++text)
        if ((unsigned char)*text < ' ' || *text == 127) *text = '?';
}

static enum status take(const char *path, struct answer *answer, const char *how, struct h5_contents *contents) {
    const char *found = how[0] ? how : "one that HDF5 reads in no sensible way";
    if (!how[0] && answer->size > 0 && answer->bytes[0] == 'E') {
        answer->bytes = h5_grow(answer->bytes, &answer->room, answer->size + 1, 1);
        answer->bytes[answer->size] = '\0';
        make_printable(answer->bytes);
        return status_fail(STATUS_CHECKPOINT, "%s", answer->bytes + 1);
    }
    if (!how[0] && answer->size > 0 && answer->bytes[0] == 'C' &&
        h5_unpack(contents, answer->bytes + 1, (size_t)answer->size - 1)) {
        enum status status = h5_check(path, contents);
        if (status) h5_contents_free(contents);
        return status;
    }
    return status_fail(STATUS_CHECKPOINT, "%s: expected an HDF5 file of arrays, found %s", path, found);
}

/* The system's fault, not the file's. */
static enum status cannot_read(const char *path) {
    return status_fail(STATUS_INTERNAL, "%s: cannot read: %s", path, strerror(errno));
}

/* What HDF5 would say less clearly, or wait for. */
static enum status check_file(const char *path) {
    static const char signature[8] = {'\x89', 'H', 'D', 'F', '\r', '\n', '\x1a', '\n'};
    struct stat info;
    char begin[8] = "";
    const char *found = NULL;
    int fd = -1;
    bool there = stat(path, &info) == 0;
    if (!there && errno != ENOENT && errno != ENOTDIR) return cannot_read(path);
    if (!there)
        found = strerror(errno);
    else if (!S_ISREG(info.st_mode))
        found = S_ISDIR(info.st_mode) ? "a folder" : "a device or a pipe";
    else if (info.st_size == 0)
        found = "an empty file";
    else if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return cannot_read(path);
    else if (pread(fd, begin, sizeof begin, 0) < 0) {
        enum status status = cannot_read(path);
        close(fd);
        return status;
    } else if (memcmp(begin, signature, sizeof begin) != 0)
        found = "a file of another kind";
    if (fd >= 0) close(fd);
    return found ? status_fail(STATUS_CHECKPOINT, "%s: expected an HDF5 file, found: %s", path, found) : STATUS_OK;
}

enum status h5_read_contents(const char *path, struct h5_contents *contents) {
    struct answer got = {0};
    char how[80];
    int ends[2];
    *contents = (struct h5_contents){0};
    TRY(check_file(path));
    if (pipe2(ends, O_CLOEXEC))
        return status_fail(STATUS_INTERNAL, "%s: cannot open a pipe: %s", path, strerror(errno));
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        close(ends[0]);
        answer(ends[1], path, parent);
    }
    int cause = errno;
    close(ends[1]);
    enum status status = STATUS_OK;
    if (child < 0) {
        status = status_fail(STATUS_INTERNAL, "%s: cannot start a process to read it: %s", path, strerror(cause));
    } else {
        bool in_time = receive(ends[0], &got);
        close(ends[0]);
        ends[0] = -1;
        wait_for(child, in_time, how, sizeof how);
        status = take(path, &got, how, contents);
    }
    if (ends[0] >= 0) close(ends[0]);
    free(got.bytes);
    return status;
}
