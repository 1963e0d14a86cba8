#ifndef GANTRY_ROOTFS_H
#define GANTRY_ROOTFS_H

#include "plan.h"

/*
 * Builds the container's root in the calling process's own mount namespace and makes it `/`. Every path of the image or of a user is
 * resolved by the kernel below the root (openat2, RESOLVE_IN_ROOT): no link leads out, and nothing can be swapped in between.
 */
int rootfs_enter(const struct plan *plan, struct error *err);

#endif
