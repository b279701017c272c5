#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/routing.h"
#include "store/archive.h"

/* As they lay where they were written. cut: the vocabulary was cut over the ranks. */
static const char *placement_of(const char *name, bool cut) {
    if (!strncmp(name, "/parameters/", 12) || !strncmp(name, "/moments/", 9)) {
        if (cut && (strstr(name, "/embedding.") || strstr(name, "/softmax."))) return "  vocabulary";
        return strstr(name, ".moe.w") || strstr(name, ".moe.b") ? "  experts" : "  replicated";
    }
    return !strncmp(name, "/memory/", 8) ? "  rows" : !strncmp(name, "/state/", 7) ? "  replicated" : "";
}

static void show_arrays(const struct archive *archive, bool cut) {
    const struct h5_contents *contents = archive_contents(archive);
    int64_t parameters = 0;
    for (int i = 0; i < contents->n_arrays; ++i) {
        const struct h5_array *array = &contents->arrays[i];
        int64_t elements = 1;
        char shape[128] = "";
        if (!strcmp(array->name, "/checksums")) continue; /* about the file, not the model */
        for (int axis = 0; axis < array->rank; ++axis) {
            snprintf(shape + strlen(shape), sizeof shape - strlen(shape), axis ? ", %lld" : "%lld",
                     (long long)array->shape[axis]);
            elements *= array->shape[axis];
        }
        if (!strncmp(array->name, "/parameters/", 12)) parameters += elements;
        log_info("%-52s [%s]%s", array->name, shape, placement_of(array->name, cut));
    }
    log_info("%lld parameters", (long long)parameters);
}

static enum status show(struct archive *archive) {
    const char *integers[] = {"format_version", "step", "epoch", "segment", "best_step", "validated", "seed", "ranks"},
               *texts[] = {"written_by", "hdf5_version", "configuration"}, *text;
    int64_t value;
    double best;
    for (size_t i = 0; i < sizeof integers / sizeof *integers; ++i) {
        TRY(archive_read_int(archive, integers[i], &value));
        log_info("%s: %lld", integers[i], (long long)value);
    }
    TRY(archive_read_real(archive, "best_valid", &best));
    log_info("best_valid: %g (nats; of a classifier 1 - accuracy)", best);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; ++i) {
        TRY(archive_read_text(archive, texts[i], &text));
        log_info("%s: %s", texts[i], text);
    }
    show_arrays(archive, strstr(text, "\"parallel.vocabulary\":true") != NULL); /* the configuration */
    return STATUS_OK;
}

static enum status inspect_checkpoint(const char *path) {
    struct archive *archive;
    TRY(archive_open(&archive, path, NULL));
    enum status status = show(archive);
    archive_close(archive);
    return status;
}

/* All ranks share the work. */
static enum status verify(const char *path, struct comm *world) {
    struct archive *archive;
    int64_t bytes;
    TRY(archive_open(&archive, path, world));
    double start = clock_seconds();
    enum status status = archive_verify(archive, &bytes);
    double seconds = clock_seconds() - start;
    if (!status)
        log_info("%s: whole: %lld bytes in %lld slabs fit their checksums, %.2f GB/s", path, (long long)bytes,
                 (long long)archive_slabs(archive), 1e-9 * (double)bytes / seconds);
    archive_close(archive);
    return status;
}

/* But for routing and verifying, rank 0 alone: nothing here needs the others. */
enum status cli_inspect(const struct arguments *arguments, struct comm *world) {
    if (arguments->routing + arguments->verify + (arguments->compare != NULL) > 1)
        return comm_agree(world, status_fail(STATUS_CONFIG,
                                             "inspect: expected one of --routing, --compare and --verify, found more"));
    if (arguments->routing) return routing_inspect(arguments, world);
    if (arguments->verify) return verify(arguments->files[0], world);
    enum status status = STATUS_OK;
    if (world->rank == 0)
        status = arguments->compare ? inspect_compare(arguments->compare, arguments->files[0])
                                    : inspect_checkpoint(arguments->files[0]);
    return comm_agree(world, status);
}
