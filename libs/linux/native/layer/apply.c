/* apply [--whiteouts] [--strict] [--lower DIR]… --into DIR: unpacks the tar that comes in below DIR, which nothing can leave. */
#include "archive.h"
#include "../kernel/inroot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define CHUNK (256 * 1024)
/* Every path is resolved by the kernel below the root; an archive that leads over a link of its own is refused. */
#define RESOLVE_STRICT (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)

struct directory_time {
    char *path;
    struct timespec mtime;
    struct directory_time *next;
};

struct unpacker {
    struct job *job;
    int root;
    const char **lowers;
    uint32_t lower_count;
    bool whiteouts, strict;
    uint64_t entries, bytes;
    char *parent_path; /* of the last entry: most entries share it */
    int parent;
    struct directory_time *directories; /* times are set last: making children changes them */
};

static int open_beneath(int root, const char *path, int flags) {
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_STRICT};
    return (int)syscall(SYS_openat2, root, path[0] ? path : ".", &how, sizeof how);
}

/* The path without `.`, double slashes and leading slash. Refuses `..`: an archive of honest making has none. */
static char *clean_path(const char *path, bool strict, struct error *err) {
    if (strict && path[0] == '/') {
        fail(err, 0, "archive", "entry \"%s\" of the archive has an absolute path", path);
        return NULL;
    }
    char *clean = malloc(strlen(path) + 1);
    size_t used = 0;
    for (const char *at = path; clean != NULL && *at != 0;) {
        size_t length = strcspn(at, "/");
        if (length == 2 && at[0] == '.' && at[1] == '.') {
            fail(err, 0, "archive", "entry \"%s\" of the archive leads out of its root", path);
            free(clean);
            return NULL;
        }
        if (length > 0 && !(length == 1 && at[0] == '.')) {
            if (used > 0)
                clean[used++] = '/';
            memcpy(clean + used, at, length);
            used += length;
        }
        at += length + (at[length] == '/');
    }
    if (clean == NULL)
        fail(err, ENOMEM, "archive", "allocate");
    else
        clean[used] = 0;
    return clean;
}

/* An implied directory looks as the same one below does: an overlay shows the upper's mode and owner. */
static void inherit(const struct unpacker *unpacker, int directory, const char *path) {
    for (uint32_t i = 0; i < unpacker->lower_count; i++) {
        AUTO_CLOSE int lower = open(unpacker->lowers[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
        AUTO_CLOSE int same = lower < 0 ? -1 : open_beneath(lower, path, O_RDONLY | O_DIRECTORY);
        struct stat status;
        if (same < 0 || fstat(same, &status) < 0)
            continue;
        if (fchown(directory, status.st_uid, status.st_gid) == 0 && fchmod(directory, status.st_mode & 07777) == 0) {
            struct timespec times[2] = {status.st_atim, status.st_mtim};
            futimens(directory, times);
        }
        return;
    }
}

/* Opens the entry's parent, making what the archive does not spell out. */
static int open_parent(struct unpacker *unpacker, const char *path, const char *entry, struct error *err) {
    if (unpacker->parent_path != NULL && strcmp(unpacker->parent_path, path) == 0)
        return unpacker->parent;
    int fd = open_beneath(unpacker->root, path, O_RDONLY | O_DIRECTORY);
    if (fd < 0 && errno == ENOENT) {
        char *prefix = strdup(path), *slash = prefix ? strrchr(prefix, '/') : NULL;
        if (prefix == NULL)
            return fail(err, ENOMEM, "archive", "allocate");
        const char *name = slash ? slash + 1 : prefix;
        AUTO_FREE char *base = strdup(name);
        if (slash)
            *slash = 0;
        int above = open_parent(unpacker, slash ? prefix : "", entry, err);
        free(prefix);
        if (above < 0)
            return -1;
        if (mkdirat(above, base, 0755) < 0 && errno != EEXIST)
            return fail(err, errno, "archive", "make %s for entry \"%s\"", path, entry);
        fd = open_beneath(unpacker->root, path, O_RDONLY | O_DIRECTORY);
        if (fd >= 0)
            inherit(unpacker, fd, path);
    }
    if (fd < 0 && (errno == ELOOP || errno == EXDEV))
        return fail(err, 0, "archive", "entry \"%s\" of the archive leads over a symbolic link", entry);
    if (fd < 0)
        return fail(err, errno, "archive", "entry \"%s\": open %s", entry, path);
    if (unpacker->parent >= 0)
        close(unpacker->parent);
    free(unpacker->parent_path);
    unpacker->parent = fd;
    unpacker->parent_path = strdup(path);
    return fd;
}

static int remove_tree(int parent, const char *name);

/* Removes what is in a directory. Takes the descriptor. */
static int empty_directory(int fd) {
    DIR *entries = fdopendir(fd);
    if (entries == NULL) {
        close(fd);
        return -1;
    }
    int result = 0;
    for (struct dirent *entry; result == 0 && (entry = readdir(entries)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = remove_tree(dirfd(entries), entry->d_name);
    }
    closedir(entries);
    return result;
}

static int remove_tree(int parent, const char *name) {
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -1;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    return empty_directory(fd) < 0 ? -1 : unlinkat(parent, name, AT_REMOVEDIR);
}

static int write_content(struct unpacker *unpacker, int fd, const struct archive_entry *entry, struct error *err) {
    static uint8_t chunk[CHUNK];
    for (uint64_t left = entry->size; left > 0;) {
        long count = job_read_some(unpacker->job, chunk, left < CHUNK ? (size_t)left : CHUNK);
        if (count <= 0)
            return fail(err, count < 0 ? errno : 0, "archive", "the archive is cut off in \"%s\": unexpected end of file", entry->path);
        for (long used = 0; used < count;) {
            ssize_t written = write(fd, chunk + used, (size_t)(count - used));
            if (written < 0)
                return fail(err, errno, "archive", "write \"%s\"", entry->path);
            used += written;
        }
        left -= (uint64_t)count;
    }
    unpacker->bytes += entry->size;
    return archive_skip_padding(unpacker->job, entry->size, err);
}

static int make_link(struct unpacker *unpacker, const struct archive_entry *entry, int parent, const char *name, struct error *err) {
    AUTO_FREE char *target = clean_path(entry->link, false, err);
    if (target == NULL)
        return -1;
    char *slash = strrchr(target, '/');
    const char *base = slash ? slash + 1 : target;
    AUTO_FREE char *directory = slash ? strndup(target, (size_t)(slash - target)) : strdup("");
    AUTO_CLOSE int from = open_beneath(unpacker->root, directory, O_PATH | O_DIRECTORY);
    if (from < 0 || base[0] == 0 || linkat(from, base, parent, name, 0) < 0)
        return fail(err, errno, "archive", "entry \"%s\": hard link to \"%s\"", entry->path, entry->link);
    return 0;
}

static int make_node(struct unpacker *unpacker, const struct archive_entry *entry, int parent, const char *name, struct error *err) {
    switch (entry->type) {
    case '0': {
        AUTO_CLOSE int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        return fd < 0 ? fail(err, errno, "archive", "make \"%s\"", entry->path) : write_content(unpacker, fd, entry, err);
    }
    case '1':
        return make_link(unpacker, entry, parent, name, err);
    case '2':
        return symlinkat(entry->link, parent, name) < 0 ? fail(err, errno, "archive", "make link \"%s\"", entry->path) : 0;
    case '3':
    case '4':
    case '6': {
        mode_t type = entry->type == '3' ? S_IFCHR : entry->type == '4' ? S_IFBLK : S_IFIFO;
        /* 0/0 is an overlay's whiteout: an image may not make one behind our back. */
        if (type == S_IFCHR && entry->major == 0 && entry->minor == 0)
            return fail(err, 0, "archive", "entry \"%s\" of the archive is a device 0/0", entry->path);
        if (mknodat(parent, name, type | 0600, makedev(entry->major, entry->minor)) < 0)
            return fail(err, errno, "archive", "make device \"%s\"", entry->path);
        return 0;
    }
    case '5':
        return mkdirat(parent, name, 0700) < 0 && errno != EEXIST ? fail(err, errno, "archive", "make directory \"%s\"", entry->path) : 0;
    default:
        return fail(err, 0, "archive", "entry \"%s\" of the archive has the unknown type '%c'", entry->path, entry->type);
    }
}

static bool may_set(const char *name) {
    return strncmp(name, "user.", 5) == 0 || strcmp(name, "security.capability") == 0 || strncmp(name, "system.posix_acl_", 17) == 0;
}

static int set_metadata(const struct archive_entry *entry, int parent, const char *name, struct error *err) {
    char path[4352];
    if (fchownat(parent, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(err, errno, "archive", "own \"%s\"", entry->path);
    if (entry->type != '2' && fchmodat(parent, name, entry->mode, 0) < 0)
        return fail(err, errno, "archive", "set the mode of \"%s\"", entry->path);
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", parent, name);
    for (uint32_t i = 0; i < entry->xattr_count; i++) {
        const struct archive_xattr *xattr = &entry->xattrs[i];
        if (may_set(xattr->name) && lsetxattr(path, xattr->name, xattr->value, xattr->length, 0) < 0 && errno != ENOTSUP && errno != EPERM)
            return fail(err, errno, "archive", "set attribute %s of \"%s\"", xattr->name, entry->path);
    }
    struct timespec times[2] = {entry->mtime, entry->mtime};
    if (utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(err, errno, "archive", "set the time of \"%s\"", entry->path);
    return 0;
}

static int apply_whiteout(int parent, const char *name, struct timespec mtime, struct error *err) {
    if (strcmp(name, ".wh..wh..opq") == 0)
        return fsetxattr(parent, "trusted.overlay.opaque", "y", 1, 0) < 0 ? fail(err, errno, "archive", "make a directory opaque") : 0;
    if (strncmp(name, ".wh..wh.", 8) == 0)
        return 0; /* aufs's own bookkeeping */
    const char *hidden = name + 4;
    if (hidden[0] == 0 || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0)
        return fail(err, 0, "archive", "invalid whiteout \"%s\"", name);
    if (remove_tree(parent, hidden) < 0 || mknodat(parent, hidden, S_IFCHR, makedev(0, 0)) < 0)
        return fail(err, errno, "archive", "whiteout \"%s\"", name);
    struct timespec times[2] = {mtime, mtime};
    return utimensat(parent, hidden, times, AT_SYMLINK_NOFOLLOW) < 0 ? fail(err, errno, "archive", "whiteout \"%s\"", name) : 0;
}

static int remember_time(struct unpacker *unpacker, const char *path, struct timespec mtime, struct error *err) {
    struct directory_time *directory = malloc(sizeof *directory);
    if (directory == NULL || (directory->path = strdup(path)) == NULL)
        return fail(err, ENOMEM, "archive", "allocate");
    directory->mtime = mtime;
    directory->next = unpacker->directories;
    unpacker->directories = directory;
    return 0;
}

static int apply_entry(struct unpacker *unpacker, const struct archive_entry *entry, struct error *err) {
    AUTO_FREE char *path = clean_path(entry->path, unpacker->strict, err);
    if (path == NULL)
        return -1;
    if (path[0] == 0) { /* the root itself */
        if (entry->type != '5')
            return fail(err, 0, "archive", "entry \"%s\" of the archive is no directory", entry->path);
        return fchown(unpacker->root, entry->uid, entry->gid) < 0 || fchmod(unpacker->root, entry->mode) < 0
                   ? fail(err, errno, "archive", "set the root's owner")
                   : remember_time(unpacker, "", entry->mtime, err);
    }
    char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    AUTO_FREE char *parent_path = slash ? strndup(path, (size_t)(slash - path)) : strdup("");
    int parent = open_parent(unpacker, parent_path, entry->path, err);
    if (parent < 0)
        return -1;
    if (unpacker->whiteouts && strncmp(name, ".wh.", 4) == 0)
        return apply_whiteout(parent, name, entry->mtime, err) < 0 ? -1 : archive_skip(unpacker->job, entry->size + (BLOCK - entry->size % BLOCK) % BLOCK, err);
    struct stat status;
    bool exists = fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
    if (exists && !(entry->type == '5' && S_ISDIR(status.st_mode)) && remove_tree(parent, name) < 0)
        return fail(err, errno, "archive", "replace \"%s\"", entry->path);
    if (make_node(unpacker, entry, parent, name, err) < 0)
        return -1;
    if (entry->type == '1')
        return 0; /* the file's own entry has said it all */
    if (set_metadata(entry, parent, name, err) < 0)
        return -1;
    return entry->type == '5' ? remember_time(unpacker, path, entry->mtime, err) : 0;
}

static void set_directory_times(struct unpacker *unpacker) {
    for (struct directory_time *directory = unpacker->directories; directory != NULL; directory = directory->next) {
        AUTO_CLOSE int fd = open_beneath(unpacker->root, directory->path, O_RDONLY | O_DIRECTORY);
        struct timespec times[2] = {directory->mtime, directory->mtime};
        if (fd >= 0) /* replaced by something else since */
            futimens(fd, times);
    }
}

int job_apply(struct job *job, char *result, size_t size, struct error *err) {
    struct unpacker unpacker = {.job = job, .parent = -1, .whiteouts = job_flag(job, "--whiteouts"), .strict = job_flag(job, "--strict")};
    const char *into = job_option(job, "--into");
    unpacker.lowers = job_options(job, "--lower", &unpacker.lower_count);
    unpacker.root = into ? open(into, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (unpacker.root < 0)
        return fail(err, errno, "archive", "open %s", into ? into : "(nothing)");
    umask(0);
    for (;;) {
        struct archive_entry entry = {0};
        int more = archive_next(job, &entry, err);
        int applied = more > 0 ? apply_entry(&unpacker, &entry, err) : more;
        archive_entry_free(&entry);
        if (applied < 0)
            return -1;
        if (more == 0)
            break;
        unpacker.entries++;
    }
    /* What follows the end is padding; it has to be read for the digest to be of the whole. */
    static uint8_t rest[65536];
    while (job_read_some(job, rest, sizeof rest) > 0)
        ;
    set_directory_times(&unpacker);
    snprintf(result, size, "entries=%llu bytes=%llu", (unsigned long long)unpacker.entries, (unsigned long long)unpacker.bytes);
    return 0;
}
