/*
 * copy --lower… --upper --work (--from DIR | --from-lower DIR…) [--chown SPEC] [--chmod OCTAL] [--keep-owner] -- FROM TO FROM TO…: copies
 * single entries into a merged tree; a directory is made, not walked: the caller names what is in it. TO with a slash at its end is a
 * directory to copy into. mkdir … [--chown SPEC] -- PATH: makes a directory with its parents.
 */
#include "job.h"
#include "../kernel/inroot.h"
#include "../kernel/overlay.h"
#include "../shim/user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

struct copier {
    int from, to;
    bool keep_owner, has_mode;
    struct user owner;
    mode_t mode;
    uint64_t files, bytes;
};

static int open_source(struct job *job, struct error *err) {
    const char *directory = job_option(job, "--from");
    uint32_t count;
    const char **lowers = job_options(job, "--from-lower", &count);
    if (directory == NULL && count == 1)
        directory = lowers[0];
    if (directory == NULL && count > 1) {
        AUTO_CLOSE int tree = overlay_mount(lowers, count, "", "", err);
        return tree < 0 ? -1 : openat(tree, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
    int fd = directory ? open(directory, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    return fd < 0 ? fail(err, errno, "copy", "open source %s", directory ? directory : "") : fd;
}

/* Names mean what the destination's own account files say. */
static int resolve_owner(int root, const char *spec, struct user *owner, struct error *err) {
    AUTO_CLOSE int back = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (back < 0 || fchdir(root) < 0 || chroot(".") < 0)
        return fail(err, errno, "copy", "enter the tree");
    int result = user_resolve(owner, spec, NULL, 0, err);
    if (fchdir(back) < 0 || chroot(".") < 0)
        return fail(err, errno, "copy", "leave the tree");
    return result;
}

static int copy_content(struct copier *copier, int from, int to, const char *path, struct error *err) {
    for (;;) {
        ssize_t count = copy_file_range(from, NULL, to, NULL, 1 << 30, 0);
        if (count < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS))
            count = sendfile(to, from, NULL, 1 << 30);
        if (count < 0)
            return fail(err, errno, "copy", "copy %s", path);
        if (count == 0)
            return 0;
        copier->bytes += (uint64_t)count;
    }
}

static void copy_xattrs(int from, int to) {
    char names[8192], value[65536];
    ssize_t length = flistxattr(from, names, sizeof names);
    for (char *at = names; length > 0 && at < names + length; at += strlen(at) + 1) {
        if (strncmp(at, "user.", 5) != 0 && strcmp(at, "security.capability") != 0)
            continue;
        ssize_t size = fgetxattr(from, at, value, sizeof value);
        if (size >= 0)
            fsetxattr(to, at, value, (size_t)size, 0);
    }
}

static int finish_entry(const struct copier *copier, int parent, const char *name, const struct stat *source, struct error *err) {
    uid_t uid = copier->keep_owner ? source->st_uid : copier->owner.uid;
    gid_t gid = copier->keep_owner ? source->st_gid : copier->owner.gid;
    mode_t mode = copier->has_mode ? copier->mode : source->st_mode & 07777;
    if (fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(err, errno, "copy", "own %s", name);
    if (!S_ISLNK(source->st_mode) && fchmodat(parent, name, mode, 0) < 0)
        return fail(err, errno, "copy", "set the mode of %s", name);
    struct timespec times[2] = {source->st_atim, source->st_mtim};
    return utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? fail(err, errno, "copy", "set the time of %s", name) : 0;
}

static int copy_regular(struct copier *copier, const char *from, int parent, const char *name, const struct stat *source, struct error *err) {
    AUTO_CLOSE int in = open_in_root(copier->from, from, O_RDONLY | O_NONBLOCK, 0);
    if (in < 0)
        return fail(err, errno, "copy", "open %s", from);
    struct stat present;
    if (fstatat(parent, name, &present, AT_SYMLINK_NOFOLLOW) == 0) {
        if (S_ISDIR(present.st_mode))
            return fail(err, EISDIR, "copy", "cannot replace directory %s with file %s", name, from);
        unlinkat(parent, name, 0);
    }
    AUTO_CLOSE int out = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (out < 0)
        return fail(err, errno, "copy", "make %s", name);
    if (copy_content(copier, in, out, from, err) < 0)
        return -1;
    copy_xattrs(in, out);
    copier->files++;
    return finish_entry(copier, parent, name, source, err);
}

static int copy_link(struct copier *copier, const char *from, int source_parent, const char *source_name, int parent, const char *name,
                     const struct stat *source, struct error *err) {
    char target[4096];
    ssize_t length = readlinkat(source_parent, source_name, target, sizeof target - 1);
    if (length < 0)
        return fail(err, errno, "copy", "read link %s", from);
    target[length] = 0;
    unlinkat(parent, name, 0);
    if (symlinkat(target, parent, name) < 0)
        return fail(err, errno, "copy", "make link %s", name);
    copier->files++;
    return finish_entry(copier, parent, name, source, err);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* A directory that is there already keeps its owner and mode, as Docker has it. */
static int copy_directory(struct copier *copier, const char *to, const struct stat *source, struct error *err) {
    AUTO_CLOSE int present = open_in_root(copier->to, to, O_PATH | O_DIRECTORY, 0);
    if (present >= 0)
        return 0;
    AUTO_CLOSE int made = make_directory(copier->to, to, 0, err);
    if (made < 0)
        return -1;
    return finish_entry(copier, made, ".", source, err);
}

static int copy_entry(struct copier *copier, const char *from, const char *to, struct error *err) {
    AUTO_FREE char *source_directory = strdup(from);
    char *slash = strrchr(source_directory, '/');
    if (slash != NULL)
        *slash = 0;
    AUTO_CLOSE int source_parent = open_in_root(copier->from, slash && source_directory[0] ? source_directory : "/", O_PATH | O_DIRECTORY, 0);
    struct stat source;
    const char *source_name = base_name(from)[0] ? base_name(from) : ".";
    if (source_parent < 0 || fstatat(source_parent, source_name, &source, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(err, errno, "copy", "stat %s", from);
    if (S_ISDIR(source.st_mode))
        return copy_directory(copier, to, &source, err);
    AUTO_FREE char *target = NULL;
    size_t length = strlen(to);
    AUTO_CLOSE int existing = open_in_root(copier->to, to, O_PATH | O_DIRECTORY, 0);
    if (asprintf(&target, "%s%s%s", to, existing >= 0 && to[length - 1] != '/' ? "/" : "",
                 existing >= 0 || to[length - 1] == '/' ? base_name(from) : "") < 0)
        return fail(err, ENOMEM, "copy", "allocate");
    AUTO_FREE char *directory = strdup(target);
    char *end = strrchr(directory, '/');
    if (end != NULL)
        *end = 0;
    AUTO_CLOSE int parent = make_directory(copier->to, end && directory[0] ? directory : "/", 0, err);
    if (parent < 0)
        return -1;
    const char *name = base_name(target);
    if (S_ISLNK(source.st_mode))
        return copy_link(copier, from, source_parent, source_name, parent, name, &source, err);
    if (S_ISREG(source.st_mode))
        return copy_regular(copier, from, parent, name, &source, err);
    if (S_ISSOCK(source.st_mode))
        return 0;
    unlinkat(parent, name, 0);
    if (mknodat(parent, name, source.st_mode, source.st_rdev) < 0)
        return fail(err, errno, "copy", "make %s", name);
    return finish_entry(copier, parent, name, &source, err);
}

int job_copy(struct job *job, char *result, size_t size, struct error *err) {
    struct copier copier = {.keep_owner = job_flag(job, "--keep-owner")};
    const char *mode = job_option(job, "--chmod"), *owner = job_option(job, "--chown");
    AUTO_CLOSE int to = root_open(job, true, err);
    AUTO_CLOSE int from = to < 0 ? -1 : open_source(job, err);
    if (from < 0)
        return -1;
    copier.to = to;
    copier.from = from;
    copier.has_mode = mode != NULL;
    copier.mode = mode ? (mode_t)strtoul(mode, NULL, 8) : 0;
    umask(0);
    if (owner != NULL && resolve_owner(to, owner, &copier.owner, err) < 0)
        return -1;
    for (int i = job_operands(job); i + 1 < job->argument_count; i += 2) {
        if (copy_entry(&copier, job->arguments[i], job->arguments[i + 1], err) < 0)
            return -1;
    }
    snprintf(result, size, "files=%llu bytes=%llu", (unsigned long long)copier.files, (unsigned long long)copier.bytes);
    return 0;
}

int job_mkdir(struct job *job, char *result, size_t size, struct error *err) {
    const char *owner = job_option(job, "--chown");
    struct user user = {0};
    AUTO_CLOSE int root = root_open(job, true, err);
    int operand = job_operands(job);
    if (root < 0 || operand >= job->argument_count)
        return root < 0 ? -1 : fail(err, EINVAL, "mkdir", "no path");
    umask(0);
    AUTO_CLOSE int present = open_in_root(root, job->arguments[operand], O_PATH | O_DIRECTORY, 0);
    snprintf(result, size, "made=%d", present < 0);
    if (present >= 0)
        return 0;
    AUTO_CLOSE int made = make_directory(root, job->arguments[operand], 0, err);
    if (made < 0 || (owner != NULL && resolve_owner(root, owner, &user, err) < 0))
        return -1;
    return owner != NULL && fchownat(made, "", user.uid, user.gid, AT_EMPTY_PATH) < 0 ? fail(err, errno, "mkdir", "own %s", job->arguments[operand]) : 0;
}
