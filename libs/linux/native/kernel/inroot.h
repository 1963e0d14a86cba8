#ifndef GANTRY_INROOT_H
#define GANTRY_INROOT_H

#include "error.h"

#include <linux/openat2.h>
#include <stdint.h>

/*
 * Opens `path` as if the directory `root` were `/` (openat2(2), RESOLVE_IN_ROOT): neither `..` nor a link leads out. `resolve` adds
 * further RESOLVE_* rules. The descriptor is close-on-exec. -1 with errno.
 */
int open_in_root(int root, const char *path, int flags, uint64_t resolve);
/* Opens a directory below the root (O_PATH) and makes what is missing on the way, with mode 0755. */
int make_directory(int root, const char *path, uint64_t resolve, struct error *err);

#endif
