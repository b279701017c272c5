#include "base/h5file.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

enum { PIECE = 1 << 30 }; /* bytes of one transfer */

struct h5file {
    hid_t id;
    bool writing, failed;
    bool is_parallel;
    int rank, size;
    MPI_Comm comm; /* borrowed; with is_parallel */
    char path[];   /* as given */
};

static enum status failed_as(const struct h5file *file) { return file->writing ? STATUS_WRITE : STATUS_CHECKPOINT; }

/* ---- What HDF5 says ---- */

/* The innermost record, or that of MPI, which stands one further out and names the cause. The next call of HDF5,
 * be it a close, clears them all: hdf5_failed comes before it. */
static herr_t take_message(unsigned n, const H5E_error2_t *record, void *message) {
    if (n == 0 || record->min_num == H5E_MPIERRSTR) snprintf(message, 300, "%s", record->desc ? record->desc : "");
    return 0;
}

/* What is quoted in "..., errno = 28, error message = 'No space left on device', ..." or in "MPI_File_open
 * failed: MPI error string is 'MPI_ERR_ACCESS: ...'"; the whole where nothing is. */
static const char *hdf5_message(void) {
    static char message[300];
    message[0] = '\0';
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_message, message);
    char *cause = strstr(message, "error message = '");
    if (!cause) cause = strstr(message, "error string is '");
    if (cause) {
        cause = strchr(cause, '\'') + 1;
        cause[strcspn(cause, "'")] = '\0';
    }
    char *text = cause ? cause : message;
    text[strcspn(text, "\n")] = '\0';
    return text[0] ? text : "unknown error of HDF5";
}

static enum status hdf5_failed(const struct h5file *file, const char *name, const char *what) {
    return status_fail(failed_as(file), "%s: %s%scannot %s: %s", file->path, name, name[0] ? ": " : "", what,
                       hdf5_message());
}

/* ---- Agreement ---- */

/* Collective over the file's ranks: the first failed rank's status and line become everyone's, so that none
 * waits in HDF5 for one that has left. */
static enum status agree(struct h5file *file, enum status status) {
    if (file->is_parallel) {
        int mine = status ? file->rank : file->size, first;
        MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, file->comm);
        if (first < file->size) {
            struct {
                int status;
                char line[1024];
            } said = {status, ""};
            snprintf(said.line, sizeof said.line, "%s", status_message());
            MPI_Bcast(&said, sizeof said, MPI_BYTE, first, file->comm);
            status = status_fail((enum status)said.status, "%s", said.line);
        }
    }
    if (status) file->failed = true;
    return status;
}

/* ---- Files ---- */

/* HDF5 closes what is still open when the process or MPI ends, and there crashes or waits for ever on a file
 * that could not be written: the exit code would be lost. Started so, and before MPI, it leaves it alone. */
__attribute__((constructor)) static void start_hdf5(void) {
    H5dont_atexit();
    H5open();
}

static struct h5file *file_new(const char *path, const void *mpi_comm, bool writing) {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* its stack of errors would be many lines; hdf5_message takes the one */
    size_t length = strlen(path) + 1;
    struct h5file *file = malloc(sizeof *file + length);
    if (!file) FATAL("out of memory");
    *file = (struct h5file){.id = -1, .writing = writing, .is_parallel = mpi_comm != NULL};
    if (mpi_comm) {
        file->comm = *(const MPI_Comm *)mpi_comm;
        MPI_Comm_rank(file->comm, &file->rank);
        MPI_Comm_size(file->comm, &file->size);
    }
    memcpy(file->path, path, length);
    return file;
}

static hid_t access_new(const struct h5file *file) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    if (file->is_parallel) H5Pset_fapl_mpio(access, file->comm, MPI_INFO_NULL);
    return access;
}

/* Opens or creates; on failure nothing is left open. */
static enum status file_enter(struct h5file **out, struct h5file *file) {
    hid_t access = access_new(file);
    file->id = file->writing ? H5Fcreate(file->path, H5F_ACC_TRUNC, H5P_DEFAULT, access)
                             : H5Fopen(file->path, H5F_ACC_RDONLY, access);
    enum status status = STATUS_OK;
    if (file->id < 0) status = hdf5_failed(file, "", file->writing ? "create" : "open");
    H5Pclose(access);
    status = agree(file, status);
    if (status) {
        if (file->id >= 0) H5Fclose(file->id);
        free(file);
        return status;
    }
    *out = file;
    return STATUS_OK;
}

/* What a parallel open would say less clearly. */
static enum status check_is_hdf5(const struct h5file *file) {
    struct stat info;
    const char *found = NULL;
    if (stat(file->path, &info) != 0)
        found = strerror(errno);
    else if (!S_ISREG(info.st_mode))
        found = S_ISDIR(info.st_mode) ? "a folder" : "a device";
    else if (info.st_size == 0)
        found = "an empty file";
    else if (H5Fis_hdf5(file->path) == 0)
        found = "a file of another kind";
    if (!found) return STATUS_OK;
    return status_fail(STATUS_CHECKPOINT, "%s: expected an HDF5 file, found: %s", file->path, found);
}

enum status h5file_create(struct h5file **out, const char *path, const void *mpi_comm) {
    return file_enter(out, file_new(path, mpi_comm, true));
}

enum status h5file_open(struct h5file **out, const char *path, const void *mpi_comm) {
    struct h5file *file = file_new(path, mpi_comm, false);
    enum status status = agree(file, check_is_hdf5(file));
    if (!status) return file_enter(out, file);
    free(file);
    return status;
}

/* On every rank: each has written pages of its own, and H5Fclose leaves them in the page cache. */
static enum status sync_file(const struct h5file *file) {
    int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    bool good = fd >= 0 && fsync(fd) == 0;
    int cause = errno;
    if (fd >= 0) close(fd);
    return good ? STATUS_OK : status_fail(STATUS_WRITE, "%s: cannot sync: %s", file->path, strerror(cause));
}

/* Takes the space of the whole file before anything is written into it. A full disk shows here, on one rank
 * and with its cause: later, MPI may lose the error, and HDF5's flush leave ranks waiting for each other. */
static enum status reserve_space(struct h5file *file) {
    enum status status = STATUS_OK;
    hsize_t size = 0;
    if (file->rank == 0 && H5Fget_filesize(file->id, &size) >= 0 && size > 0) {
        int fd = open(file->path, O_WRONLY | O_CLOEXEC);
        int cause = fd >= 0 && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)size) == 0 ? 0 : errno;
        bool unsupported = cause == EOPNOTSUPP || cause == ENOSYS; /* by some network file systems */
        if (cause && !unsupported)
            status = status_fail(STATUS_WRITE, "%s: cannot take %llu bytes: %s", file->path, (unsigned long long)size,
                                 strerror(cause));
        if (fd >= 0) close(fd);
    }
    return agree(file, status);
}

/* A file that could not be written is abandoned: HDF5 would try again, and fail on some ranks only. */
static enum status finish_writing(struct h5file *file) {
    if (file->failed) return STATUS_WRITE;
    enum status status = reserve_space(file);
    if (status) return status;
    status = agree(file, H5Fflush(file->id, H5F_SCOPE_GLOBAL) < 0 ? hdf5_failed(file, "", "flush") : STATUS_OK);
    if (status) return status;
    if (H5Fclose(file->id) < 0) status = hdf5_failed(file, "", "close");
    if (!status) status = sync_file(file);
    return agree(file, status);
}

enum status h5file_close(struct h5file *file) {
    if (!file) return STATUS_OK;
    enum status status = STATUS_OK;
    if (file->writing)
        status = finish_writing(file);
    else
        H5Fclose(file->id);
    free(file);
    return status;
}

const char *h5file_path(const struct h5file *file) { return file->path; }

/* ---- Arrays ---- */

/* "[3, 4]"; "[]" for a scalar. */
static const char *format_shape(char out[128], int rank, const int64_t *shape) {
    int n = snprintf(out, 128, "[");
    for (int i = 0; i < rank; i++) n += snprintf(out + n, 128 - (size_t)n, i ? ", %lld" : "%lld", (long long)shape[i]);
    snprintf(out + n, 128 - (size_t)n, "]");
    return out;
}

static hid_t memory_type(enum h5type type) {
    return type == H5T_FLOAT32 ? H5T_NATIVE_FLOAT : type == H5T_FLOAT64 ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64;
}

static hid_t stored_type(enum h5type type) {
    return type == H5T_FLOAT32 ? H5T_IEEE_F32LE : type == H5T_FLOAT64 ? H5T_IEEE_F64LE : H5T_STD_I64LE;
}

/* Rows [first, first + count), count > 0, from `out` or into `in`, one of which is NULL. Each rank goes alone:
 * its rows are one stretch of the file, and Open MPI's own collective writing loses errors. */
static enum status transfer_rows(const struct h5file *file, const char *name, hid_t dataset, enum h5type type, int rank,
                                 const int64_t *shape, int64_t first, int64_t count, void *in, const void *out) {
    hsize_t start[H5_MAX_RANK] = {(hsize_t)first}, size[H5_MAX_RANK] = {(hsize_t)count};
    for (int i = 1; i < rank; i++) size[i] = (hsize_t)shape[i];
    hid_t memory = rank ? H5Screate_simple(rank, size, NULL) : H5Screate(H5S_SCALAR);
    hid_t space = H5Dget_space(dataset);
    bool good = memory >= 0 && space >= 0;
    if (good && rank > 0) good = H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL) >= 0;
    if (good && out) good = H5Dwrite(dataset, memory_type(type), memory, space, H5P_DEFAULT, out) >= 0;
    if (good && in) good = H5Dread(dataset, memory_type(type), memory, space, H5P_DEFAULT, in) >= 0;
    enum status status = good ? STATUS_OK : hdf5_failed(file, name, out ? "write" : "read");
    H5Sclose(space);
    H5Sclose(memory);
    return status;
}

/* In pieces of whole rows: HDF5 over MPI moves less than 2 GiB at once. */
static enum status transfer(const struct h5file *file, const char *name, hid_t dataset, enum h5type type, int rank,
                            const int64_t *shape, int64_t first, int64_t count, void *in, const void *out) {
    CHECK(first >= 0 && count >= 0 && (rank == 0 ? count <= 1 : first + count <= shape[0]));
    int64_t row = type == H5T_FLOAT32 ? 4 : 8; /* bytes */
    for (int i = 1; i < rank; i++) row *= shape[i];
    int64_t most = row > 0 && row < PIECE ? PIECE / row : 1;
    enum status status = STATUS_OK;
    for (int64_t done = 0; done < count && !status; done += most)
        status = transfer_rows(file, name, dataset, type, rank, shape, first + done,
                               count - done < most ? count - done : most, in ? (char *)in + done * row : NULL,
                               out ? (const char *)out + done * row : NULL);
    return status;
}

/* 1, 0, or -1 where HDF5 fails: every group on the way is looked up, for H5Lexists minds a missing one. */
static int object_exists(const struct h5file *file, const char *name) {
    char path[H5_MAX_NAME];
    if (strlen(name) >= sizeof path) return 0;
    for (const char *end = name + 1; end[-1]; end++) {
        if (*end && *end != '/') continue;
        snprintf(path, sizeof path, "%.*s", (int)(end - name), name);
        htri_t found = H5Lexists(file->id, path, H5P_DEFAULT);
        if (found <= 0) return found;
        if (!*end) break;
    }
    return H5Oexists_by_name(file->id, name, H5P_DEFAULT);
}

static enum status dataset_open(const struct h5file *file, const char *name, hid_t *dataset) {
    H5O_info_t info;
    if (H5Oget_info_by_name2(file->id, name, &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0)
        return hdf5_failed(file, name, "look up");
    if (info.type != H5O_TYPE_DATASET)
        return status_fail(STATUS_CHECKPOINT, "%s: %s: expected an array, found a group", file->path, name);
    *dataset = H5Dopen2(file->id, name, H5P_DEFAULT);
    return *dataset < 0 ? hdf5_failed(file, name, "open") : STATUS_OK;
}

static enum status dataset_create(const struct h5file *file, const char *name, enum h5type type, int rank,
                                  const int64_t *shape, hid_t *dataset) {
    hsize_t size[H5_MAX_RANK];
    for (int i = 0; i < rank; i++) size[i] = (hsize_t)shape[i];
    hid_t space = rank ? H5Screate_simple(rank, size, NULL) : H5Screate(H5S_SCALAR);
    hid_t links = H5Pcreate(H5P_LINK_CREATE), layout = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    H5Pset_layout(layout, H5D_CONTIGUOUS);
    H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY); /* reserve_space needs it, and parallel HDF5 */
    H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER);   /* or every byte would be written twice */
    *dataset = H5Dcreate2(file->id, name, stored_type(type), space, links, layout, H5P_DEFAULT);
    enum status status = *dataset < 0 ? hdf5_failed(file, name, "create") : STATUS_OK;
    H5Pclose(layout);
    H5Pclose(links);
    H5Sclose(space);
    return status;
}

enum status h5file_write(struct h5file *file, const char *name, enum h5type type, int rank, const int64_t *shape,
                         int64_t first, int64_t count, const void *data) {
    CHECK(rank >= 0 && rank <= H5_MAX_RANK && strlen(name) < H5_MAX_NAME);
    hid_t dataset = -1;
    enum status status = object_exists(file, name) > 0 ? dataset_open(file, name, &dataset)
                                                       : dataset_create(file, name, type, rank, shape, &dataset);
    status = agree(file, status);
    if (!status) status = reserve_space(file);
    if (!status) status = agree(file, transfer(file, name, dataset, type, rank, shape, first, count, NULL, data));
    if (dataset >= 0) H5Dclose(dataset);
    return status;
}

static enum status dataset_shape(const struct h5file *file, const char *name, hid_t dataset, int *rank,
                                 int64_t *shape) {
    hsize_t size[H5S_MAX_RANK];
    hid_t space = H5Dget_space(dataset);
    int axes = H5Sget_simple_extent_dims(space, size, NULL);
    bool is_null = H5Sget_simple_extent_type(space) == H5S_NULL;
    H5Sclose(space);
    if (axes < 0) return hdf5_failed(file, name, "read the shape");
    if (is_null || axes > H5_MAX_RANK)
        return status_fail(STATUS_CHECKPOINT, "%s: %s: expected an array of at most %d axes, found %s", file->path,
                           name, H5_MAX_RANK, is_null ? "an empty one" : "more");
    for (int i = 0; i < axes; i++) shape[i] = (int64_t)size[i];
    *rank = axes;
    return STATUS_OK;
}

enum status h5file_shape(struct h5file *file, const char *name, int *rank, int64_t *shape) {
    int exists = object_exists(file, name);
    hid_t dataset = -1;
    enum status status = STATUS_OK;
    *rank = -1;
    if (exists < 0) status = hdf5_failed(file, name, "look up");
    if (exists > 0) status = dataset_open(file, name, &dataset);
    if (dataset >= 0) {
        status = dataset_shape(file, name, dataset, rank, shape);
        H5Dclose(dataset);
    }
    return agree(file, status);
}

static enum status check_class(const struct h5file *file, const char *name, hid_t dataset, enum h5type type) {
    hid_t stored = H5Dget_type(dataset);
    H5T_class_t class = H5Tget_class(stored), wanted = type == H5T_INT64 ? H5T_INTEGER : H5T_FLOAT;
    H5Tclose(stored);
    if (class == wanted) return STATUS_OK;
    return status_fail(STATUS_CHECKPOINT, "%s: %s: expected %s, found values of another type", file->path, name,
                       wanted == H5T_INTEGER ? "integers" : "floating-point numbers");
}

static enum status check_shape(const struct h5file *file, const char *name, hid_t dataset, int rank,
                               const int64_t *shape) {
    int found_rank;
    int64_t found[H5_MAX_RANK];
    enum status status = dataset_shape(file, name, dataset, &found_rank, found);
    if (status) return status;
    bool same = found_rank == rank;
    for (int i = 0; same && i < rank; i++) same = found[i] == shape[i];
    if (same) return STATUS_OK;
    char a[128], b[128];
    return status_fail(STATUS_CHECKPOINT, "%s: %s: expected shape %s, found %s", file->path, name,
                       format_shape(a, rank, shape), format_shape(b, found_rank, found));
}

enum status h5file_read(struct h5file *file, const char *name, enum h5type type, int rank, const int64_t *shape,
                        int64_t first, int64_t count, void *data) {
    CHECK(rank >= 0 && rank <= H5_MAX_RANK);
    int exists = object_exists(file, name);
    hid_t dataset = -1;
    enum status status = STATUS_OK;
    if (exists < 0) status = hdf5_failed(file, name, "look up");
    if (exists == 0) status = status_fail(STATUS_CHECKPOINT, "%s: %s: expected an array, found none", file->path, name);
    if (!status) status = dataset_open(file, name, &dataset);
    if (!status) status = check_class(file, name, dataset, type);
    if (!status) status = check_shape(file, name, dataset, rank, shape);
    if (!status) status = transfer(file, name, dataset, type, rank, shape, first, count, data, NULL);
    status = agree(file, status);
    if (dataset >= 0) H5Dclose(dataset);
    return status;
}

/* ---- Attributes of the root group ---- */

static enum status write_attribute(struct h5file *file, const char *name, hid_t stored, hid_t type, const void *value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file->id, name, stored, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, type, value) >= 0;
    enum status status = agree(file, good ? STATUS_OK : hdf5_failed(file, name, "write"));
    if (attribute >= 0) H5Aclose(attribute);
    H5Sclose(space);
    return status;
}

enum status h5file_write_int(struct h5file *file, const char *name, int64_t value) {
    return write_attribute(file, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

enum status h5file_write_double(struct h5file *file, const char *name, double value) {
    return write_attribute(file, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

enum status h5file_write_text(struct h5file *file, const char *name, const char *value) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(value) + 1);
    H5Tset_cset(type, H5T_CSET_UTF8);
    enum status status = write_attribute(file, name, type, type, value);
    H5Tclose(type);
    return status;
}

/* One value of that class; *type (the caller closes it) is the stored one. */
static enum status attribute_open(const struct h5file *file, const char *name, H5T_class_t class, const char *expected,
                                  hid_t *attribute, hid_t *type) {
    htri_t exists = H5Aexists(file->id, name);
    if (exists == 0)
        return status_fail(STATUS_CHECKPOINT, "%s: attribute %s: expected %s, found none", file->path, name, expected);
    *attribute = exists < 0 ? -1 : H5Aopen(file->id, name, H5P_DEFAULT);
    if (*attribute < 0) return hdf5_failed(file, name, "open the attribute");
    *type = H5Aget_type(*attribute);
    hid_t space = H5Aget_space(*attribute);
    bool fits = H5Tget_class(*type) == class && H5Sget_simple_extent_npoints(space) == 1;
    H5Sclose(space);
    if (fits) return STATUS_OK;
    return status_fail(STATUS_CHECKPOINT, "%s: attribute %s: expected %s, found something else", file->path, name,
                       expected);
}

static enum status read_number(struct h5file *file, const char *name, H5T_class_t class, const char *expected,
                               hid_t memory, void *value) {
    hid_t attribute = -1, type = -1;
    enum status status = attribute_open(file, name, class, expected, &attribute, &type);
    if (!status && H5Aread(attribute, memory, value) < 0) status = hdf5_failed(file, name, "read the attribute");
    if (type >= 0) H5Tclose(type);
    if (attribute >= 0) H5Aclose(attribute);
    return agree(file, status);
}

enum status h5file_read_int(struct h5file *file, const char *name, int64_t *value) {
    return read_number(file, name, H5T_INTEGER, "an integer", H5T_NATIVE_INT64, value);
}

enum status h5file_read_double(struct h5file *file, const char *name, double *value) {
    return read_number(file, name, H5T_FLOAT, "a number", H5T_NATIVE_DOUBLE, value);
}

/* Texts come in two forms: of fixed length, as we write them, and of variable length, as Python does. */
static enum status read_text(const struct h5file *file, const char *name, hid_t attribute, hid_t type, char **text) {
    bool is_variable = H5Tis_variable_str(type) > 0;
    char *owned = NULL; /* by HDF5 */
    if (!is_variable && !(*text = calloc(H5Tget_size(type) + 1, 1))) FATAL("out of memory");
    if (H5Aread(attribute, type, is_variable ? (void *)&owned : *text) < 0)
        return hdf5_failed(file, name, "read the attribute");
    if (is_variable && !(*text = strdup(owned ? owned : ""))) FATAL("out of memory");
    H5free_memory(owned);
    return STATUS_OK;
}

enum status h5file_read_text(struct h5file *file, const char *name, char **value) {
    hid_t attribute = -1, type = -1;
    char *text = NULL;
    enum status status = attribute_open(file, name, H5T_STRING, "text", &attribute, &type);
    if (!status) status = read_text(file, name, attribute, type, &text);
    if (type >= 0) H5Tclose(type);
    if (attribute >= 0) H5Aclose(attribute);
    status = agree(file, status);
    if (status)
        free(text);
    else
        *value = text;
    return status;
}

/* ---- Listing ---- */

struct list {
    const char *group;
    char (*names)[H5_MAX_NAME];
    int count, room;
};

static herr_t list_add(hid_t parent, const char *name, const H5O_info_t *info, void *data) {
    (void)parent;
    struct list *list = data;
    if (info->type != H5O_TYPE_DATASET) return 0;
    if (list->count == list->room) {
        list->room = list->room ? 2 * list->room : 64;
        list->names = realloc(list->names, (size_t)list->room * sizeof *list->names);
        if (!list->names) FATAL("out of memory");
    }
    const char *slash = list->group[strlen(list->group) - 1] == '/' ? "" : "/";
    int length = snprintf(list->names[list->count++], H5_MAX_NAME, "%s%s%s", list->group, slash, name);
    return length < H5_MAX_NAME ? 0 : -1;
}

enum status h5file_list(struct h5file *file, const char *group, char (**names)[H5_MAX_NAME], int *count) {
    struct list list = {.group = group};
    bool good = H5Ovisit_by_name2(file->id, group, H5_INDEX_NAME, H5_ITER_INC, list_add, &list, H5O_INFO_BASIC,
                                  H5P_DEFAULT) >= 0;
    enum status status = agree(file, good ? STATUS_OK : hdf5_failed(file, group, "list"));
    if (status) {
        free(list.names);
        return status;
    }
    *names = list.names;
    *count = list.count;
    return STATUS_OK;
}

const char *h5file_library_version(void) {
    static char version[32];
    unsigned major, minor, release;
    H5get_libversion(&major, &minor, &release);
    snprintf(version, sizeof version, "%u.%u.%u", major, minor, release);
    return version;
}
