#ifndef GANTRY_OVERLAY_H
#define GANTRY_OVERLAY_H

#include "error.h"

#include <stddef.h>
#include <stdint.h>

/*
 * An overlay of `lowerdirs` (top first) as a mount that is attached nowhere yet: a descriptor for move_mount(2) or openat(2). An empty
 * `upperdir` makes it read-only.
 */
int overlay_mount(const char *const *lowerdirs, uint32_t count, const char *upperdir, const char *workdir, struct error *err);
/* The kernel's own sentence about a refused file system option, where it has one. */
const char *context_message(int context, char *buffer, size_t size);

#endif
