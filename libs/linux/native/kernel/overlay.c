#include "overlay.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OVERLAY_STRING_MAX 4096

/* The kernel's own sentence about a refused option, where it has one. */
const char *context_message(int context, char *buffer, size_t size) {
    ssize_t length = read(context, buffer, size - 1);
    if (length <= 0)
        return "";
    buffer[length] = 0;
    return buffer;
}

static int add_lower_layers(int context, const char *const *lowerdirs, uint32_t count, struct error *err) {
    uint32_t i = 0;
    for (; i < count; i++) {
        if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "lowerdir+", lowerdirs[i], 0) < 0)
            break;
    }
    if (i == count)
        return 0;
    if (i > 0 || errno != EINVAL)
        return fail(err, errno, "rootfs", "layer %s", lowerdirs[i]);
    /* Before Linux 6.7 there is no lowerdir+: all layers in one option, which holds few. */
    char joined[OVERLAY_STRING_MAX] = "";
    size_t used = 0;
    for (i = 0; i < count; i++) {
        used += (size_t)snprintf(joined + used, sizeof joined - used, "%s%s", i ? ":" : "", lowerdirs[i]);
        if (used >= sizeof joined)
            return fail(err, E2BIG, "rootfs", "%u layers need Linux 6.7 or later", count);
    }
    if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "lowerdir", joined, 0) < 0)
        return fail(err, errno, "rootfs", "layers %s", joined);
    return 0;
}

/* What these say is part of what a layer means: a host's module defaults must not change it. */
static const char *const OVERLAY_FIXED[] = {"metacopy", "redirect_dir", "index", "xino"};

int overlay_mount(const char *const *lowerdirs, uint32_t count, const char *upperdir, const char *workdir, struct error *err) {
    AUTO_CLOSE int context = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
    if (context < 0)
        return fail(err, errno, "rootfs", "overlay file system");
    syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", "overlay", 0);
    if (add_lower_layers(context, lowerdirs, count, err) < 0)
        return -1;
    if (upperdir[0] != 0) {
        if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "upperdir", upperdir, 0) < 0)
            return fail(err, errno, "rootfs", "upperdir %s", upperdir);
        if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "workdir", workdir, 0) < 0)
            return fail(err, errno, "rootfs", "workdir %s", workdir);
    }
    for (size_t i = 0; i < sizeof OVERLAY_FIXED / sizeof *OVERLAY_FIXED; i++)
        syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, OVERLAY_FIXED[i], "off", 0); /* a kernel without the key has it off */
    if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
        char reason[256];
        int number = errno;
        return fail(err, number, "rootfs", "overlay %s", context_message(context, reason, sizeof reason));
    }
    int fd = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
    return fd >= 0 ? fd : fail(err, errno, "rootfs", "mount the overlay");
}
