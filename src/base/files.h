/* What makes changes of files last. */
#ifndef VQMOE_FILES_H
#define VQMOE_FILES_H

#include <stdbool.h>

/* Creates a folder and those above it that are missing; false, and errno, where it cannot. */
bool files_make_folder(const char *path);
/* Another host says that it has made `path`: waits, a minute at most, until this one, which may have looked before,
 * sees it too. */
bool files_await(const char *path);
/* The entry of `path` in its folder is on disk: after a file was made, renamed or removed. False, and errno, where not;
 * file systems with nothing to sync are fine. */
bool files_sync_entry(const char *path);
/* Renames `beside`, whose bytes are on disk, to `path`: whatever happens, one of the two is there, whole. */
bool files_replace(const char *beside, const char *path);

#endif
