#define H5_USE_110_API
#include <ctype.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "store/h5_private.h"

enum { MOST_GROUPS = 1 << 18 };

struct walk {
    const char *path; /* of the file */
    struct h5_contents *contents;
    int64_t array_room, attribute_room;
    int groups;
    char name[H5_MAX_NAME]; /* of the group that is looked through, "" for the root */
};

static enum status failed(const struct walk *walk, const char *name, const char *what) {
    return status_fail(STATUS_CHECKPOINT, "%s: %s%scannot %s: %s", walk->path, name, name[0] ? ": " : "", what,
                       h5_library_message());
}

static enum status refused(const struct walk *walk, const char *name, const char *expected, const char *found) {
    return status_fail(STATUS_CHECKPOINT, "%s: %s: expected %s, found %s", walk->path, name, expected, found);
}

static bool is_printable(const char *name) {
    while (*name && !iscntrl((unsigned char)*name)) name++;
    return !*name;
}

/* ---- Arrays ---- */

static enum status take_type(const struct walk *walk, hid_t set, struct h5_array *array) {
    static const char *const expected = "little-endian float32, float64, int64 or uint8";
    const hid_t types[H5_TYPES] = {H5T_IEEE_F32LE, H5T_IEEE_F64LE, H5T_STD_I64LE, H5T_STD_U8LE};
    hid_t type = H5Dget_type(set);
    int found = -1;
    for (int i = 0; i < H5_TYPES; ++i)
        if (H5Tequal(type, types[i]) > 0) found = i;
    H5Tclose(type);
    if (found < 0) return refused(walk, array->name, expected, "values of another type");
    array->type = (enum h5_type)found;
    return STATUS_OK;
}

static enum status take_shape(const struct walk *walk, hid_t set, struct h5_array *array) {
    hsize_t size[H5S_MAX_RANK];
    hid_t space = H5Dget_space(set);
    int rank = H5Sget_simple_extent_dims(space, size, NULL);
    bool is_null = H5Sget_simple_extent_type(space) == H5S_NULL;
    H5Sclose(space);
    if (rank < 0) return failed(walk, array->name, "read the shape");
    if (is_null || rank > H5_MAX_RANK)
        return refused(walk, array->name, "an array of at most 4 axes", is_null ? "an empty one" : "more");
    array->rank = rank;
    for (int i = 0; i < rank; ++i) {
        if (size[i] > INT64_MAX) return refused(walk, array->name, "fewer than 2^63 rows", "more");
        array->shape[i] = (int64_t)size[i];
    }
    return STATUS_OK;
}

static enum status take_place(const struct walk *walk, hid_t set, struct h5_array *array) {
    static const char *const expected = "contiguous values in this file";
    hid_t layout = H5Dget_create_plist(set);
    H5D_layout_t found = H5Pget_layout(layout);
    int filters = H5Pget_nfilters(layout), external = H5Pget_external_count(layout);
    H5Pclose(layout);
    if (found != H5D_CONTIGUOUS) return refused(walk, array->name, expected, "another layout");
    if (external != 0) return refused(walk, array->name, expected, "those of another file");
    if (filters != 0) return refused(walk, array->name, expected, "filters");
    array->bytes = h5_element_bytes(array->type);
    for (int i = 0; i < array->rank; ++i)
        if (__builtin_mul_overflow(array->bytes, array->shape[i], &array->bytes))
            return refused(walk, array->name, "fewer than 2^63 bytes", "more");
    haddr_t offset = array->bytes ? H5Dget_offset(set) : HADDR_UNDEF;
    array->offset = offset > INT64_MAX ? -1 : (int64_t)offset;
    if (array->bytes && array->offset < 0) return refused(walk, array->name, expected, "none");
    return STATUS_OK;
}

static enum status take_array(struct walk *walk, hid_t parent, const char *link, const char *name) {
    struct h5_contents *contents = walk->contents;
    if (contents->n_arrays == H5_MOST_ARRAYS) return refused(walk, name, "at most 262144 arrays", "more");
    hid_t set = H5Dopen2(parent, link, H5P_DEFAULT);
    if (set < 0) return failed(walk, name, "open");
    struct h5_array array = {.rank = 0};
    snprintf(array.name, sizeof array.name, "%s", name);
    enum status status = take_type(walk, set, &array);
    if (!status) status = take_shape(walk, set, &array);
    if (!status) status = take_place(walk, set, &array);
    H5Dclose(set);
    if (status) return status;
    contents->arrays = h5_grow(contents->arrays, &walk->array_room, contents->n_arrays + 1, sizeof array);
    contents->arrays[contents->n_arrays++] = array;
    return STATUS_OK;
}

/* ---- Groups ---- */

static herr_t visit(hid_t parent, const char *link, const H5L_info_t *info, void *data);

static enum status look_through(struct walk *walk, hid_t group, const char *name) {
    if (walk->groups++ == MOST_GROUPS) return refused(walk, name, "at most 262144 groups", "more");
    herr_t code = H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, visit, walk);
    if (code == 0) return STATUS_OK;
    return failed(walk, name, "list"); /* keeps what visit said */
}

static enum status enter(struct walk *walk, hid_t parent, const char *link, const char *name) {
    hid_t group = H5Gopen2(parent, link, H5P_DEFAULT);
    if (group < 0) return failed(walk, name, "open");
    char above[H5_MAX_NAME];
    memcpy(above, walk->name, sizeof above);
    snprintf(walk->name, sizeof walk->name, "%s", name);
    enum status status = look_through(walk, group, name);
    memcpy(walk->name, above, sizeof above);
    H5Gclose(group);
    return status;
}

/* Follows hard links alone, and each object by one name. So what it walks is a tree, and ends. */
static herr_t visit(hid_t parent, const char *link, const H5L_info_t *info, void *data) {
    struct walk *walk = data;
    char name[H5_MAX_NAME];
    H5O_info_t object;
    int length = snprintf(name, sizeof name, "%s/%s", walk->name, link);
    if (length >= H5_MAX_NAME || !is_printable(link))
        return refused(walk, walk->name[0] ? walk->name : "/", "printable names of at most 127 bytes", "others") ? -1
                                                                                                                 : 0;
    if (info->type != H5L_TYPE_HARD)
        return refused(walk, name, "an array or a group", "a link to another place") ? -1 : 0;
    if (H5Oget_info_by_name2(parent, link, &object, H5O_INFO_BASIC, H5P_DEFAULT) < 0)
        return failed(walk, name, "look up") ? -1 : 0;
    if (object.rc != 1) return refused(walk, name, "an object of one name", "one of several") ? -1 : 0;
    if (object.type == H5O_TYPE_DATASET) return take_array(walk, parent, link, name) ? -1 : 0;
    if (object.type == H5O_TYPE_GROUP) return enter(walk, parent, link, name) ? -1 : 0;
    return refused(walk, name, "an array or a group", "an object of another kind") ? -1 : 0;
}

/* ---- Attributes of the root group ---- */

/* Texts come in two forms: of fixed length, as we write them, and of variable length, as Python does. */
static enum status take_text(const struct walk *walk, hid_t id, hid_t type, struct h5_attribute *a) {
    bool is_variable = H5Tis_variable_str(type) > 0;
    size_t size = is_variable ? 0 : H5Tget_size(type);
    char *owned = NULL; /* by HDF5 */
    if (size > H5_MOST_TEXT) return refused(walk, a->name, "a text of at most 16 MiB", "more");
    a->text = calloc(size + 1, 1);
    if (!a->text) FATAL("out of memory");
    if (H5Aread(id, type, is_variable ? (void *)&owned : a->text) < 0)
        return failed(walk, a->name, "read the attribute");
    if (!is_variable || !owned) return STATUS_OK;
    if (strnlen(owned, H5_MOST_TEXT + 1) > H5_MOST_TEXT)
        return refused(walk, a->name, "a text of at most 16 MiB", "more");
    free(a->text);
    a->text = strdup(owned);
    if (!a->text) FATAL("out of memory");
    H5free_memory(owned);
    return STATUS_OK;
}

static enum status take_value(const struct walk *walk, hid_t id, hid_t type, struct h5_attribute *a) {
    if (a->kind == H5_TEXT) return take_text(walk, id, type, a);
    hid_t memory = a->kind == H5_INTEGER ? H5T_NATIVE_INT64 : H5T_NATIVE_DOUBLE;
    if (H5Aread(id, memory, a->kind == H5_INTEGER ? (void *)&a->integer : &a->real) >= 0) return STATUS_OK;
    return failed(walk, a->name, "read the attribute");
}

static herr_t visit_attribute(hid_t root, const char *name, const H5A_info_t *info, void *data) {
    (void)info;
    struct walk *walk = data;
    struct h5_contents *contents = walk->contents;
    struct h5_attribute a = {.kind = H5_INTEGER};
    if (strlen(name) >= sizeof a.name || !is_printable(name)) return 0; /* none of ours */
    strcpy(a.name, name);
    hid_t id = H5Aopen(root, name, H5P_DEFAULT);
    if (id < 0) return failed(walk, name, "open the attribute") ? -1 : 0;
    hid_t type = H5Aget_type(id), space = H5Aget_space(id);
    H5T_class_t class = H5Tget_class(type);
    bool known = class == H5T_INTEGER || class == H5T_FLOAT || class == H5T_STRING;
    enum status status = STATUS_OK;
    a.kind = class == H5T_INTEGER ? H5_INTEGER : class == H5T_FLOAT ? H5_REAL : H5_TEXT;
    if (H5Sget_simple_extent_npoints(space) != 1) known = false;
    if (known) status = take_value(walk, id, type, &a);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(id);
    if (status || !known) {
        free(a.text);
        return status ? -1 : 0;
    }
    contents->attributes = h5_grow(contents->attributes, &walk->attribute_room, contents->n_attributes + 1, sizeof a);
    contents->attributes[contents->n_attributes++] = a;
    return 0;
}

static enum status take_attributes(struct walk *walk, hid_t root) {
    H5O_info_t info;
    if (H5Oget_info2(root, &info, H5O_INFO_NUM_ATTRS) < 0) return failed(walk, "", "count the attributes");
    if (info.num_attrs > H5_MOST_ATTRIBUTES) return refused(walk, "/", "at most 4096 attributes", "more");
    if (H5Aiterate2(root, H5_INDEX_NAME, H5_ITER_INC, NULL, visit_attribute, walk) < 0)
        return failed(walk, "", "list the attributes");
    return STATUS_OK;
}

enum status h5_walk(const char *path, struct h5_contents *contents) {
    struct walk walk = {.path = path, .contents = contents};
    struct stat info;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_file_locking(access, 0, 1); /* some network file systems know no locks */
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
    if (file < 0) return failed(&walk, "", "open");
    hid_t root = H5Gopen2(file, "/", H5P_DEFAULT);
    if (root < 0 || stat(path, &info)) return failed(&walk, "", "open");
    contents->bytes = info.st_size;
    TRY(take_attributes(&walk, root));
    return look_through(&walk, root, "/");
}
