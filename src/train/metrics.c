#include "train/metrics.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/files.h"
#include "base/log.h"
#include "train/diagnostics.h"
#include "train/task.h"

/* The lines of steps up to `step` of an earlier file, into a new one beside it; then that takes its place. The step of
 * a line stands after `prefix`. */
static bool cut_back(const char *path, const char *prefix, int64_t step) {
    char beside[1040], *line = NULL;
    size_t room = 0;
    FILE *old = fopen(path, "r");
    if (!old) return errno == ENOENT;
    snprintf(beside, sizeof beside, "%s.tmp", path);
    FILE *cut = fopen(beside, "w");
    bool good = cut != NULL;
    while (good && getline(&line, &room, old) > 0) {
        char *number = line + strlen(prefix), *end = number;
        long long at = strncmp(line, prefix, strlen(prefix)) ? 0 : strtoll(number, &end, 10);
        if (end != number && at <= step && strchr(line, '\n')) good = fputs(line, cut) >= 0;
    }
    free(line);
    fclose(old);
    if (cut) good = fflush(cut) == 0 && fsync(fileno(cut)) == 0 && good;
    if (cut) good = fclose(cut) == 0 && good;
    return good && files_replace(beside, path);
}

static enum status open_lines(FILE **file, const char *path, const char *prefix, int64_t step) {
    bool good = step == 0 || cut_back(path, prefix, step);
    if (good) *file = fopen(path, step ? "a" : "w");
    if (*file && !files_sync_entry(path)) {
        fclose(*file);
        *file = NULL;
    }
    return *file ? STATUS_OK : status_fail(STATUS_WRITE, "%s: cannot write: %s", path, strerror(errno));
}

enum status metrics_open(struct metrics *metrics, const char *folder, int rank, int64_t step) {
    *metrics = (struct metrics){0};
    if (rank != 0) return STATUS_OK;
    snprintf(metrics->path, sizeof metrics->path, "%s/metrics.jsonl", folder);
    snprintf(metrics->hashes_path, sizeof metrics->hashes_path, "%s/route_hashes.tsv", folder);
    enum status status = open_lines(&metrics->file, metrics->path, "{\"step\":", step);
    return status ? status : open_lines(&metrics->hashes, metrics->hashes_path, "", step);
}

void metrics_close(struct metrics *metrics) {
    if (metrics->file) fclose(metrics->file);
    if (metrics->hashes) fclose(metrics->hashes);
    metrics->file = metrics->hashes = NULL;
}

void metrics_hashes(struct metrics *metrics, int64_t number, const struct step *step) {
    if (!metrics->hashes) return;
    bool good = fprintf(metrics->hashes, "%" PRId64, number) > 0;
    for (int64_t i = 0; i < step->model->layers; ++i)
        good = fprintf(metrics->hashes, "\t%016" PRIx64, step->stats.hashes[i]) > 0 && good;
    good = putc('\n', metrics->hashes) != EOF && good;
    if (!good && !metrics->hashes_errno) metrics->hashes_errno = errno;
}

enum status metrics_flush(struct metrics *metrics) {
    if (!metrics->hashes) return STATUS_OK;
    if (fflush(metrics->hashes) && !metrics->hashes_errno) metrics->hashes_errno = errno;
    if (!metrics->hashes_errno) return STATUS_OK;
    return status_fail(STATUS_WRITE, "%s: cannot write: %s", metrics->hashes_path, strerror(metrics->hashes_errno));
}

static bool sync_lines(FILE *file) { return !fflush(file) && !fsync(fileno(file)); }

enum status metrics_sync(struct metrics *metrics) {
    TRY(metrics_flush(metrics));
    if (!metrics->file || (sync_lines(metrics->file) && sync_lines(metrics->hashes))) return STATUS_OK;
    return status_fail(STATUS_WRITE, "%s: cannot write: %s", metrics->path, strerror(errno));
}

static void add_training(cJSON *line, const struct metrics_line *from) {
    const struct step *step = from->train;
    int64_t layers = step->model->layers, E = step->model->E;
    cJSON_AddNumberToObject(line, "vq_loss", step->stats.vq);
    cJSON_AddNumberToObject(line, "balance_loss", step->stats.balance);
    cJSON_AddNumberToObject(line, "distill_loss", step->stats.distill);
    cJSON_AddNumberToObject(line, "lr", from->lr);
    cJSON_AddNumberToObject(line, "grad_norm", from->grad_norm);
    cJSON *load = cJSON_AddArrayToObject(line, "expert_load"),
          *perplexity = cJSON_AddArrayToObject(line, "code_perplexity");
    cJSON *hashes = cJSON_AddArrayToObject(line, "route_hash"), *dropped = cJSON_AddArrayToObject(line, "dropped");
    for (int64_t i = 0; i < layers; ++i) {
        char hash[24];
        snprintf(hash, sizeof hash, "%016" PRIx64, step->stats.hashes[i]);
        const double *slots = step->stats.dropped + 2 * i;
        cJSON_AddItemToArray(load, E ? cJSON_CreateDoubleArray(step->stats.load + i * E, (int)E) : cJSON_CreateNull());
        cJSON_AddItemToArray(dropped, slots[1] > 0 ? cJSON_CreateNumber(slots[0] / slots[1]) : cJSON_CreateNull());
        cJSON_AddItemToArray(perplexity,
                             step->codes ? cJSON_CreateNumber(step_code_perplexity(step, i)) : cJSON_CreateNull());
        cJSON_AddItemToArray(hashes, cJSON_CreateString(hash));
    }
}

/* The line's end; frees it. */
static enum status put(struct metrics *metrics, cJSON *line) {
    char *text = cJSON_PrintUnformatted(line);
    cJSON_Delete(line);
    if (!text) FATAL("out of memory");
    bool good = fprintf(metrics->file, "%s\n", text) > 0 && fflush(metrics->file) == 0;
    free(text);
    if (!good) return status_fail(STATUS_WRITE, "%s: cannot write: %s", metrics->path, strerror(errno));
    return metrics_flush(metrics);
}

enum status metrics_write(struct metrics *metrics, const struct metrics_line *from) {
    if (!metrics->file) return STATUS_OK;
    cJSON *line = cJSON_CreateObject();
    cJSON_AddNumberToObject(line, "step", (double)from->step);
    cJSON_AddStringToObject(line, "split", from->split);
    cJSON_AddNumberToObject(line, "loss", from->loss);
    if (!from->task->classes && from->task->legend.vocabulary->bytes)
        cJSON_AddNumberToObject(line, "bpc", from->loss / M_LN2);
    else if (!from->task->classes)
        cJSON_AddNumberToObject(line, "perplexity", exp(from->loss));
    if (!isnan(from->accuracy)) cJSON_AddNumberToObject(line, "accuracy", from->accuracy);
    if (!isnan(from->macro_f1)) cJSON_AddNumberToObject(line, "macro_f1", from->macro_f1);
    if (from->train) add_training(line, from);
    bool examples = from->task->classes && !from->train;
    cJSON_AddNumberToObject(line, from->task->classes ? "examples" : "tokens", (double)from->count);
    cJSON_AddNumberToObject(line, examples ? "examples_per_s" : "tokens_per_s", from->per_s);
    if (from->best_step >= 0) cJSON_AddNumberToObject(line, "best_step", (double)from->best_step);
    return put(metrics, line);
}

bool metrics_has(const char *folder, int64_t step, const char *split) {
    char path[1024], prefix[128], *line = NULL;
    size_t room = 0;
    bool found = false;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    snprintf(prefix, sizeof prefix, "{\"step\":%" PRId64 ",\"split\":\"%s\"", step, split);
    FILE *file = fopen(path, "r");
    while (file && !found && getline(&line, &room, file) > 0)
        found = !strncmp(line, prefix, strlen(prefix)) && strchr(line, '\n');
    free(line);
    if (file) fclose(file);
    return found;
}

enum status metrics_write_routing(struct metrics *metrics, const struct routing_line *from) {
    if (!metrics->file) return STATUS_OK;
    cJSON *line = cJSON_CreateObject();
    cJSON_AddNumberToObject(line, "step", (double)from->step);
    cJSON_AddStringToObject(line, "split", "routing");
    for (int i = 0; i < MEASURES; ++i) {
        cJSON *values = cJSON_AddArrayToObject(line, measure_names[i]);
        for (int64_t layer = 0; layer < from->layers; ++layer) {
            double value = from->measures[layer * MEASURES + i];
            cJSON_AddItemToArray(values, isfinite(value) ? cJSON_CreateNumber(value) : cJSON_CreateNull());
        }
    }
    cJSON_AddNumberToObject(line, "bytes_between_ranks", from->bytes);
    cJSON_AddNumberToObject(line, "seconds", from->seconds);
    return put(metrics, line);
}
