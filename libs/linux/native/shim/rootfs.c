#include "rootfs.h"

#include "../kernel/inroot.h"
#include "../kernel/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Opens a mount's target; makes it, as a file or a directory, where it is missing. */
static int open_target(int root, const struct plan_mount *mount, struct error *err) {
    uint64_t resolve = mount->flags & MOUNT_NO_SYMLINK ? RESOLVE_NO_SYMLINKS : 0;
    if (!(mount->flags & MOUNT_FILE))
        return make_directory(root, mount->target, resolve, err);
    int fd = open_in_root(root, mount->target, O_PATH, resolve);
    if (fd >= 0 || errno != ENOENT)
        return fd >= 0 ? fd : fail(err, errno, "mount", "open %s in the container", mount->target);
    char parent_path[4096];
    snprintf(parent_path, sizeof parent_path, "%s", mount->target);
    char *slash = strrchr(parent_path, '/');
    const char *name = slash ? slash + 1 : parent_path;
    AUTO_FREE char *base = strdup(name);
    if (slash != NULL)
        *slash = 0;
    AUTO_CLOSE int parent = make_directory(root, parent_path[0] ? parent_path : "/", resolve, err);
    if (parent < 0)
        return -1;
    AUTO_CLOSE int made = openat(parent, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (made < 0)
        return fail(err, errno, "mount", "make %s in the container", mount->target);
    fd = open_in_root(root, mount->target, O_PATH, resolve);
    return fd >= 0 ? fd : fail(err, errno, "mount", "open %s in the container", mount->target);
}

static int attach(int mount_fd, int target, const char *name, struct error *err) {
    if (syscall(SYS_move_mount, mount_fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return fail(err, errno, "mount", "mount on %s", name);
    return 0;
}

static int set_attributes(int fd, uint64_t attributes, uint64_t propagation, bool recursive, const char *name, struct error *err) {
    struct mount_attr attr = {.attr_set = attributes, .propagation = propagation};
    if (attributes == 0 && propagation == 0)
        return 0;
    if (attributes & MOUNT_ATTR__ATIME)
        attr.attr_clr = MOUNT_ATTR__ATIME;
    if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr, sizeof attr) < 0)
        return fail(err, errno, "mount", "set the attributes of %s", name);
    return 0;
}

/* Gives the comma-separated options to a file system context, as mount(8) would. */
static int configure(int context, const char *type, const char *data, struct error *err) {
    AUTO_FREE char *copy = strdup(data);
    if (copy == NULL)
        return fail(err, ENOMEM, "mount", "options of %s", type);
    char *cursor = copy, *option, reason[256];
    while ((option = strsep(&cursor, ",")) != NULL) {
        if (*option == 0)
            continue;
        char *value = strchr(option, '=');
        if (value != NULL)
            *value++ = 0;
        long done = value ? syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, option, value, 0)
                          : syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, option, NULL, 0);
        if (done < 0) {
            int number = errno;
            return fail(err, number, "mount", "option %s of %s %s", option, type, context_message(context, reason, sizeof reason));
        }
    }
    return 0;
}

/* A new file system of a type, not mounted anywhere yet. -1 with ENODEV in err->number where the kernel lacks the type. */
static int new_file_system(const char *type, const char *source, const char *data, uint64_t attributes, struct error *err) {
    AUTO_CLOSE int context = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
    if (context < 0)
        return fail(err, errno, "mount", "file system %s", type);
    if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", source[0] ? source : type, 0) < 0)
        return fail(err, errno, "mount", "source of %s", type);
    if (configure(context, type, data, err) < 0)
        return -1;
    if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
        char reason[256];
        int number = errno;
        return fail(err, number, "mount", "create %s %s", type, context_message(context, reason, sizeof reason));
    }
    int fd = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, (unsigned)attributes);
    return fd >= 0 ? fd : fail(err, errno, "mount", "mount %s", type);
}

static int clone_tree(int directory, const char *path, bool recursive, struct error *err) {
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
    int fd = (int)syscall(SYS_open_tree, directory, path, flags);
    return fd >= 0 ? fd : fail(err, errno, "mount", "bind source %s", path);
}

static int apply_mount(int root, const struct plan_mount *mount, struct error *err) {
    bool is_bind = mount->flags & MOUNT_BIND, recursive = mount->flags & MOUNT_RECURSIVE;
    AUTO_CLOSE int tree = is_bind ? clone_tree(AT_FDCWD, mount->source, recursive, err)
                                  : new_file_system(mount->type, mount->source, mount->data, mount->attributes, err);
    if (tree < 0)
        return mount->flags & MOUNT_OPTIONAL && (err->number == ENODEV || err->number == EINVAL || err->number == EPERM) ? 0 : -1;
    AUTO_CLOSE int target = open_target(root, mount, err);
    if (target < 0)
        return -1;
    bool recursive_attributes = mount->flags & MOUNT_RECURSIVE_ATTR;
    if (is_bind && set_attributes(tree, mount->attributes, 0, recursive_attributes, mount->target, err) < 0)
        return -1;
    if (is_bind && set_attributes(tree, 0, mount->propagation ? mount->propagation : MS_PRIVATE, recursive, mount->target, err) < 0)
        return -1;
    return attach(tree, target, mount->target, err);
}

static int make_device(int root, const struct plan_device *device, struct error *err) {
    char parent_path[4096];
    snprintf(parent_path, sizeof parent_path, "%s", device->path);
    char *slash = strrchr(parent_path, '/');
    if (slash == NULL)
        return fail(err, EINVAL, "device", "%s is not absolute", device->path);
    *slash = 0;
    AUTO_CLOSE int parent = make_directory(root, parent_path, 0, err);
    if (parent < 0)
        return -1;
    const char *name = slash + 1;
    unlinkat(parent, name, 0); /* a device given by the user replaces the default node of that name */
    if (mknodat(parent, name, device->mode, makedev(device->major, device->minor)) < 0)
        return fail(err, errno, "device", "make %s", device->path);
    if (fchownat(parent, name, device->uid, device->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(err, errno, "device", "own %s", device->path);
    return 0;
}

static int make_symlink(int root, const struct plan_pair *link, struct error *err) {
    char parent_path[4096];
    snprintf(parent_path, sizeof parent_path, "%s", link->second);
    char *slash = strrchr(parent_path, '/');
    if (slash == NULL)
        return fail(err, EINVAL, "mount", "link %s is not absolute", link->second);
    *slash = 0;
    AUTO_CLOSE int parent = make_directory(root, parent_path, 0, err);
    if (parent < 0)
        return -1;
    if (symlinkat(link->first, parent, slash + 1) < 0 && errno != EEXIST)
        return fail(err, errno, "mount", "link %s", link->second);
    return 0;
}

/* CVE-2025-31133: what a file is masked with is the host's own /dev/null, opened before the image had a say. */
static int open_null(struct error *err) {
    int fd = clone_tree(AT_FDCWD, "/dev/null", false, err);
    struct stat status;
    if (fd < 0)
        return -1;
    if (fstat(fd, &status) < 0 || !S_ISCHR(status.st_mode) || status.st_rdev != makedev(1, 3)) {
        close(fd);
        return fail(err, EINVAL, "mask", "/dev/null of the host is not the null device");
    }
    return fd;
}

static int mask_path(int root, int null_tree, int *empty, const char *path, struct error *err) {
    AUTO_CLOSE int target = open_in_root(root, path, O_PATH, 0);
    if (target < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : fail(err, errno, "mask", "open %s", path);
    struct stat status;
    if (fstat(target, &status) < 0)
        return fail(err, errno, "mask", "stat %s", path);
    if (S_ISDIR(status.st_mode)) {
        /* One empty read-only tmpfs serves every masked directory. */
        if (*empty < 0)
            *empty = new_file_system("tmpfs", "tmpfs", "size=0k,nr_inodes=2", MOUNT_ATTR_RDONLY, err);
        if (*empty < 0)
            return -1;
        AUTO_CLOSE int clone = clone_tree(*empty, "", false, err);
        return clone < 0 ? -1 : attach(clone, target, path, err);
    }
    AUTO_CLOSE int clone = clone_tree(null_tree, "", false, err);
    return clone < 0 ? -1 : attach(clone, target, path, err);
}

static int protect_path(int root, const char *path, struct error *err) {
    AUTO_CLOSE int target = open_in_root(root, path, O_PATH, 0);
    if (target < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : fail(err, errno, "readonly", "open %s", path);
    AUTO_CLOSE int clone = clone_tree(target, "", true, err);
    if (clone < 0 || set_attributes(clone, MOUNT_ATTR_RDONLY, 0, true, path, err) < 0)
        return -1;
    return attach(clone, target, path, err);
}

static int write_sysctl(int root, const struct plan_pair *sysctl, struct error *err) {
    char path[512];
    snprintf(path, sizeof path, "/proc/sys/%s", sysctl->first);
    AUTO_CLOSE int fd = open_in_root(root, path, O_WRONLY, RESOLVE_NO_SYMLINKS);
    struct statfs fs;
    if (fd < 0)
        return fail(err, errno, "sysctl", "open sysctl %s", sysctl->first);
    /* CVE-2025-52881: a write meant for procfs must not land in a file that an image put there. */
    if (fstatfs(fd, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC)
        return fail(err, EINVAL, "sysctl", "%s is not in procfs", path);
    if (write(fd, sysctl->second, strlen(sysctl->second)) < 0)
        return fail(err, errno, "sysctl", "write sysctl %s=%s", sysctl->first, sysctl->second);
    return 0;
}

static int populate(const struct plan *plan, int root, struct error *err) {
    for (uint32_t i = 0; i < plan->mount_count; i++) {
        if (apply_mount(root, &plan->mounts[i], err) < 0)
            return -1;
    }
    for (uint32_t i = 0; i < plan->device_count; i++) {
        if (make_device(root, &plan->devices[i], err) < 0)
            return -1;
    }
    for (uint32_t i = 0; i < plan->symlink_count; i++) {
        if (make_symlink(root, &plan->symlinks[i], err) < 0)
            return -1;
    }
    for (uint32_t i = 0; i < plan->sysctl_count; i++) {
        if (write_sysctl(root, &plan->sysctls[i], err) < 0)
            return -1;
    }
    return 0;
}

static int protect(const struct plan *plan, int root, struct error *err) {
    if (plan->masked.count > 0) {
        AUTO_CLOSE int null_tree = open_null(err);
        AUTO_CLOSE int empty = -1;
        if (null_tree < 0)
            return -1;
        for (uint32_t i = 0; i < plan->masked.count; i++) {
            if (mask_path(root, null_tree, &empty, plan->masked.items[i], err) < 0)
                return -1;
        }
    }
    for (uint32_t i = 0; i < plan->readonly.count; i++) {
        if (protect_path(root, plan->readonly.items[i], err) < 0)
            return -1;
    }
    return 0;
}

int rootfs_enter(const struct plan *plan, struct error *err) {
    mode_t mask = umask(0);
    /* Slave first: nothing done here reaches the host, while binds may still follow what the host mounts later. */
    if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
        return fail(err, errno, "rootfs", "make the mounts slaves");
    AUTO_CLOSE int tree = overlay_mount(plan->lowerdirs.items, plan->lowerdirs.count, plan->upperdir, plan->workdir, err);
    if (tree < 0)
        return -1;
    char path[4096];
    snprintf(path, sizeof path, "%s/rootfs", plan->run_dir);
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return fail(err, errno, "rootfs", "make %s", path);
    AUTO_CLOSE int point = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (point < 0)
        return fail(err, errno, "rootfs", "open %s", path);
    if (attach(tree, point, path, err) < 0 || set_attributes(tree, 0, MS_PRIVATE, false, "/", err) < 0)
        return -1;
    /* `tree` is the mount's root itself: opening below it never passes through the mount point's path again. */
    AUTO_CLOSE int root = openat(tree, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fail(err, errno, "rootfs", "open the root");
    if (populate(plan, root, err) < 0 || protect(plan, root, err) < 0)
        return -1;
    if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
        return fail(err, errno, "rootfs", "pivot_root");
    if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return fail(err, errno, "rootfs", "leave the host's root");
    if (plan->readonly_rootfs && set_attributes(root, MOUNT_ATTR_RDONLY, 0, false, "/", err) < 0)
        return -1;
    umask(mask);
    return 0;
}
