/* hdf5.h is at home here and in h5_walk.c. */
#define H5_USE_110_API
#include <errno.h>
#include <hdf5.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "store/h5_private.h"

enum { ALIGN_FROM = 64 << 10, ALIGN = 4096 }; /* bytes: large arrays begin at pages */

/* What could not be written stays open inside HDF5, which would try again when the process ends. Started so it does
 * not; and before MPI, of whose end it learns nothing then. */
__attribute__((constructor)) static void start_hdf5(void) {
    H5dont_atexit();
    H5open();
}

/* Innermost first. */
static herr_t take_message(unsigned n, const H5E_error2_t *record, void *message) {
    if (n == 0) snprintf(message, 300, "%s", record->desc ? record->desc : "");
    return 0;
}

/* What is quoted in "..., errno = 28, error message = 'No space left on device', ..."; the whole where nothing is. */
const char *h5_library_message(void) {
    static char message[300];
    message[0] = '\0';
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_message, message);
    char *cause = strstr(message, "error message = '"), *text = message;
    if (cause) {
        text = strchr(cause, '\'') + 1;
        text[strcspn(text, "'")] = '\0';
    }
    text[strcspn(text, "\n")] = '\0';
    return text[0] ? text : "unknown error of HDF5";
}

/* Before the next call of HDF5, be it a close: it forgets what it said. */
static enum status failed(const char *path, const char *name, const char *what) {
    return status_fail(STATUS_WRITE, "%s: %s%scannot %s: %s", path, name, name[0] ? ": " : "", what,
                       h5_library_message());
}

/* The same contents become the same bytes: no times. */
static hid_t timeless(hid_t class) {
    hid_t properties = H5Pcreate(class);
    H5Pset_obj_track_times(properties, 0);
    return properties;
}

static hid_t create_file(const char *path) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), create = timeless(H5P_FILE_CREATE);
    H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    H5Pset_file_locking(access, 0, 1); /* some network file systems know no locks */
    H5Pset_alignment(access, ALIGN_FROM, ALIGN);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, create, access);
    if (file < 0) failed(path, "", "create");
    H5Pclose(create);
    H5Pclose(access);
    return file;
}

/* Those above the array. */
static bool create_groups(hid_t file, const char *name) {
    bool good = true;
    for (const char *end = strchr(name + 1, '/'); end && good; end = strchr(end + 1, '/')) {
        char group[H5_MAX_NAME];
        snprintf(group, sizeof group, "%.*s", (int)(end - name), name);
        htri_t there = H5Lexists(file, group, H5P_DEFAULT);
        good = there >= 0;
        if (there != 0) continue;
        hid_t create = timeless(H5P_GROUP_CREATE);
        hid_t id = H5Gcreate2(file, group, H5P_DEFAULT, create, H5P_DEFAULT);
        good = id >= 0;
        if (good) H5Gclose(id);
        H5Pclose(create);
    }
    return good;
}

static hid_t stored_type(enum h5_type type) {
    const hid_t types[H5_TYPES] = {H5T_IEEE_F32LE, H5T_IEEE_F64LE, H5T_STD_I64LE, H5T_STD_U8LE};
    return types[type];
}

/* Its place is settled at once, and its bytes are left alone. */
static enum status create_array(hid_t file, const char *path, struct h5_array *array) {
    hsize_t size[H5_MAX_RANK];
    CHECK(array->rank >= 0 && array->rank <= H5_MAX_RANK && array->name[0] == '/');
    for (int i = 0; i < array->rank; i++) size[i] = (hsize_t)array->shape[i];
    if (!create_groups(file, array->name)) return failed(path, array->name, "create the group");
    hid_t space = array->rank ? H5Screate_simple(array->rank, size, NULL) : H5Screate(H5S_SCALAR);
    hid_t layout = timeless(H5P_DATASET_CREATE);
    H5Pset_layout(layout, H5D_CONTIGUOUS);
    H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER);
    hid_t set = H5Dcreate2(file, array->name, stored_type(array->type), space, H5P_DEFAULT, layout, H5P_DEFAULT);
    enum status status = set < 0 ? failed(path, array->name, "create") : STATUS_OK;
    array->bytes = h5_row_bytes(array) * (array->rank ? array->shape[0] : 1);
    haddr_t offset = set < 0 || !array->bytes ? HADDR_UNDEF : H5Dget_offset(set);
    array->offset = offset == HADDR_UNDEF ? -1 : (int64_t)offset;
    if (!status && array->bytes && array->offset < 0) status = failed(path, array->name, "place");
    if (set >= 0) H5Dclose(set);
    H5Pclose(layout);
    H5Sclose(space);
    return status;
}

static enum status create_attribute(hid_t file, const char *path, const struct h5_attribute *a) {
    const void *value = a->kind == H5_INTEGER ? (const void *)&a->integer
                        : a->kind == H5_REAL  ? (const void *)&a->real
                                              : a->text;
    hid_t type = H5Tcopy(a->kind == H5_INTEGER ? H5T_STD_I64LE : a->kind == H5_REAL ? H5T_IEEE_F64LE : H5T_C_S1);
    if (a->kind == H5_TEXT) {
        H5Tset_size(type, strlen(a->text) + 1);
        H5Tset_cset(type, H5T_CSET_UTF8);
    }
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t id = H5Acreate2(file, a->name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    enum status status = id < 0 || H5Awrite(id, type, value) < 0 ? failed(path, a->name, "write") : STATUS_OK;
    if (id >= 0) H5Aclose(id);
    H5Sclose(space);
    H5Tclose(type);
    return status;
}

enum status h5_create(const char *path, struct h5_contents *contents) {
    struct stat info;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* its stack of errors would be many lines; we say the one */
    hid_t file = create_file(path);
    enum status status = file < 0 ? STATUS_WRITE : STATUS_OK;
    for (int i = 0; i < contents->n_arrays && !status; ++i) status = create_array(file, path, &contents->arrays[i]);
    for (int i = 0; i < contents->n_attributes && !status; ++i)
        status = create_attribute(file, path, &contents->attributes[i]);
    if (file >= 0 && H5Fclose(file) < 0 && !status) status = failed(path, "", "close");
    if (status) return status;
    if (stat(path, &info)) return status_fail(STATUS_WRITE, "%s: cannot look up: %s", path, strerror(errno));
    contents->bytes = info.st_size;
    return STATUS_OK;
}

const char *h5_library_version(void) {
    static char version[32];
    unsigned major, minor, release;
    H5get_libversion(&major, &minor, &release);
    snprintf(version, sizeof version, "%u.%u.%u", major, minor, release);
    return version;
}
