#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/h5file.h"
#include "base/log.h"
#include "cli/routing.h"

static enum status show_arrays(struct h5file *file, int64_t *parameters) {
    char(*names)[H5_MAX_NAME] = NULL;
    int count = 0;
    enum status status = h5file_list(file, "/", &names, &count);
    for (int i = 0; i < count && !status; ++i) {
        int rank;
        int64_t shape[H5_MAX_RANK], elements = 1;
        char text[128] = "";
        status = h5file_shape(file, names[i], &rank, shape);
        for (int axis = 0; axis < rank; ++axis) {
            snprintf(text + strlen(text), sizeof text - strlen(text), axis ? ", %lld" : "%lld", (long long)shape[axis]);
            elements *= shape[axis];
        }
        bool parameter = !strncmp(names[i], "/parameters/", 12);
        const char *placement = "";
        if (parameter || !strncmp(names[i], "/moments/", 9))
            placement = strstr(names[i], ".moe.w") || strstr(names[i], ".moe.b") ? "experts" : "replicated";
        if (!strncmp(names[i], "/memory/", 8)) placement = "rows";
        if (!strncmp(names[i], "/state/", 7)) placement = "replicated";
        if (parameter) *parameters += elements;
        log_info("%-52s [%s]%s%s", names[i], text, *placement ? "  " : "", placement);
    }
    free(names);
    return status;
}

static enum status show(struct h5file *file) {
    const char *integers[] = {"format_version", "step", "epoch", "segment", "seed", "ranks"};
    int64_t value, parameters = 0;
    double best;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < sizeof integers / sizeof *integers && !status; ++i)
        if (!(status = h5file_read_int(file, integers[i], &value))) log_info("%s: %lld", integers[i], (long long)value);
    if (!status && !(status = h5file_read_double(file, "best_valid", &best))) log_info("best_valid: %g nats", best);
    const char *texts[] = {"written_by", "hdf5_version", "configuration"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts && !status; ++i) {
        char *text = NULL;
        if (!(status = h5file_read_text(file, texts[i], &text))) log_info("%s: %s", texts[i], text);
        free(text);
    }
    if (!status) status = show_arrays(file, &parameters);
    if (!status) log_info("%lld parameters", (long long)parameters);
    return status;
}

/* But for the routing, rank 0 alone: nothing here needs the others. */
enum status cli_inspect(const struct arguments *arguments, struct comm *world) {
    if (arguments->routing && arguments->compare)
        return comm_agree(world, status_fail(STATUS_CONFIG, "inspect: expected --routing or --compare, found both"));
    if (arguments->routing) return routing_inspect(arguments, world);
    struct h5file *file = NULL;
    enum status status = STATUS_OK;
    if (world->rank == 0 && arguments->compare) {
        status = inspect_compare(arguments->compare, arguments->files[0]);
    } else if (world->rank == 0) {
        status = h5file_open(&file, arguments->files[0], NULL);
        if (!status) status = show(file);
        h5file_close(file);
    }
    return comm_agree(world, status);
}
