#include "inroot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Opens `path` as if `root` were `/`. */
int open_in_root(int root, const char *path, int flags, uint64_t resolve) {
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve};
    if (flags & O_CREAT)
        how.mode = 0644;
    /* RESOLVE_IN_ROOT gives EAGAIN where a rename races with it (openat2(2)). */
    for (int attempt = 0;; attempt++) {
        int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
        if (fd >= 0 || errno != EAGAIN || attempt == 64)
            return fd;
    }
}

/* Opens a directory below the root and makes what is missing on the way. */
int make_directory(int root, const char *path, uint64_t resolve, struct error *err) {
    int fd = open_in_root(root, path, O_PATH | O_DIRECTORY, resolve);
    if (fd >= 0)
        return fd;
    if (errno != ENOENT)
        return fail(err, errno, "mount", "open %s in the container", path);
    char prefix[4096];
    if ((size_t)snprintf(prefix, sizeof prefix, "%s", path) >= sizeof prefix)
        return fail(err, ENAMETOOLONG, "mount", "path %.64s…", path);
    AUTO_CLOSE int parent = open_in_root(root, "/", O_PATH | O_DIRECTORY, 0);
    for (char *at = prefix; parent >= 0 && *at != 0;) {
        while (*at == '/')
            at++;
        if (*at == 0)
            break;
        char *end = strchrnul(at, '/'), saved = *end;
        *end = 0;
        int next = open_in_root(root, prefix, O_PATH | O_DIRECTORY, resolve);
        if (next < 0 && errno == ENOENT) {
            if (mkdirat(parent, at, 0755) < 0 && errno != EEXIST)
                return fail(err, errno, "mount", "make %s in the container", prefix);
            next = open_in_root(root, prefix, O_PATH | O_DIRECTORY, resolve);
        }
        if (next < 0)
            return fail(err, errno, "mount", "open %s in the container", prefix);
        close(parent);
        parent = next;
        *end = saved;
        at = end;
    }
    fd = parent;
    parent = -1;
    return fd;
}
