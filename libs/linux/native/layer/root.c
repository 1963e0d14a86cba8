#include "job.h"
#include "../kernel/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

int root_open(struct job *job, bool writable, struct error *err) {
    const char *directory = job_option(job, "--dir"), *upper = job_option(job, "--upper"), *work = job_option(job, "--work");
    if (directory != NULL) {
        int fd = open(directory, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        return fd < 0 ? fail(err, errno, "tree", "open %s", directory) : fd;
    }
    uint32_t count;
    const char **lowers = job_options(job, "--lower", &count);
    if (lowers == NULL || count == 0)
        return fail(err, EINVAL, "tree", "no layers");
    /* The mount is this process's alone and goes with it, crash or not. */
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) < 0)
        return fail(err, errno, "tree", "make a mount namespace");
    /* One layer and nothing on top needs no overlay, and could not have one. */
    if (count == 1 && !writable) {
        int fd = open(lowers[0], O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        return fd < 0 ? fail(err, errno, "tree", "open %s", lowers[0]) : fd;
    }
    AUTO_CLOSE int tree = overlay_mount(lowers, count, writable ? upper : "", work, err);
    if (tree < 0)
        return -1;
    if (syscall(SYS_move_mount, tree, "", AT_FDCWD, "/mnt", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return fail(err, errno, "tree", "attach the overlay");
    int fd = openat(tree, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? fail(err, errno, "tree", "open the overlay") : fd;
}
