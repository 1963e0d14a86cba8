/* diff --dir UPPER [--epoch SECONDS]: an overlay's upper directory as a layer, the same bytes for the same tree. */
#include "archive.h"
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define CHUNK (256 * 1024)

struct inode {
    dev_t device;
    ino_t number;
    char *path; /* first name in this layer: later ones are hard links to it */
};

struct packer {
    struct job *job;
    void *inodes;
    long long epoch; /* -1: times as they are */
    uint64_t entries;
};

static int compare_inodes(const void *left, const void *right) {
    const struct inode *a = left, *b = right;
    if (a->number != b->number)
        return a->number < b->number ? -1 : 1;
    return a->device == b->device ? 0 : a->device < b->device ? -1 : 1;
}

static bool is_kept_xattr(const char *name) {
    return strncmp(name, "user.", 5) == 0 || strcmp(name, "security.capability") == 0 || strncmp(name, "system.posix_acl_", 17) == 0;
}

static void read_xattrs(struct archive_entry *entry, int parent, const char *name) {
    char path[4352], names[8192], value[65536];
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", parent, name);
    ssize_t length = llistxattr(path, names, sizeof names);
    for (char *at = names; length > 0 && at < names + length && entry->xattr_count < XATTRS_MAX; at += strlen(at) + 1) {
        ssize_t size = is_kept_xattr(at) ? lgetxattr(path, at, value, sizeof value) : -1;
        if (size < 0)
            continue;
        struct archive_xattr *xattr = &entry->xattrs[entry->xattr_count++];
        *xattr = (struct archive_xattr){.name = strdup(at), .value = malloc((size_t)size + 1), .length = (size_t)size};
        memcpy(xattr->value, value, (size_t)size);
    }
}

static int write_file(struct packer *packer, int parent, const char *name, const struct archive_entry *entry, struct error *err) {
    static uint8_t chunk[CHUNK];
    AUTO_CLOSE int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return fail(err, errno, "diff", "open %s", entry->path);
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    for (uint64_t left = entry->size; left > 0;) {
        ssize_t count = read(fd, chunk, left < CHUNK ? (size_t)left : CHUNK);
        if (count <= 0)
            return fail(err, count < 0 ? errno : ESTALE, "diff", "%s changes while it is read", entry->path);
        if (job_write(packer->job, chunk, (size_t)count, err) < 0)
            return -1;
        left -= (uint64_t)count;
    }
    return archive_write_padding(packer->job, entry->size, err);
}

static int write_marker(struct packer *packer, const char *directory, const char *name, struct timespec mtime, struct error *err) {
    char path[4352];
    snprintf(path, sizeof path, "%s%s", directory, name);
    struct archive_entry entry = {.type = '0', .path = path, .mtime = mtime};
    packer->entries++;
    return archive_write_header(packer->job, &entry, err);
}

static int pack_directory(struct packer *packer, int fd, const char *prefix, struct error *err);

/* A second name of a file that is in the layer already. */
static const char *known_inode(struct packer *packer, const struct stat *status, const char *path) {
    if (status->st_nlink < 2 || S_ISDIR(status->st_mode))
        return NULL;
    struct inode *wanted = malloc(sizeof *wanted);
    *wanted = (struct inode){.device = status->st_dev, .number = status->st_ino};
    struct inode **found = tsearch(wanted, &packer->inodes, compare_inodes);
    if (*found != wanted) {
        free(wanted);
        return (*found)->path;
    }
    wanted->path = strdup(path);
    return NULL;
}

static char type_of(mode_t mode) {
    return S_ISREG(mode) ? '0' : S_ISLNK(mode) ? '2' : S_ISCHR(mode) ? '3' : S_ISBLK(mode) ? '4' : S_ISDIR(mode) ? '5' : S_ISFIFO(mode) ? '6' : 0;
}

static int pack_entry(struct packer *packer, int parent, const char *prefix, const char *name, struct error *err) {
    struct stat status;
    char path[4352], link[4096] = "";
    if (fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(err, errno, "diff", "stat %s%s", prefix, name);
    struct timespec mtime = status.st_mtim;
    if (packer->epoch >= 0 && mtime.tv_sec >= packer->epoch)
        mtime = (struct timespec){.tv_sec = (time_t)packer->epoch};
    if (S_ISCHR(status.st_mode) && status.st_rdev == makedev(0, 0)) {
        snprintf(path, sizeof path, ".wh.%s", name);
        return write_marker(packer, prefix, path, mtime, err);
    }
    char type = type_of(status.st_mode);
    if (type == 0)
        return 0; /* a socket means nothing once its process is gone */
    snprintf(path, sizeof path, "%s%s%s", prefix, name, type == '5' ? "/" : "");
    const char *known = known_inode(packer, &status, path);
    struct archive_entry entry = {.type = known ? '1' : type, .path = path, .mode = status.st_mode & 07777, .uid = status.st_uid,
                                  .gid = status.st_gid, .mtime = mtime, .link = known ? (char *)known : link,
                                  .size = type == '0' && !known ? (uint64_t)status.st_size : 0};
    if (type == '3' || type == '4') {
        entry.major = major(status.st_rdev);
        entry.minor = minor(status.st_rdev);
    }
    if (type == '2' && readlinkat(parent, name, link, sizeof link - 1) < 0)
        return fail(err, errno, "diff", "read link %s", path);
    if (!known)
        read_xattrs(&entry, parent, name);
    packer->entries++;
    int result = archive_write_header(packer->job, &entry, err);
    for (uint32_t i = 0; i < entry.xattr_count; i++) {
        free(entry.xattrs[i].name);
        free(entry.xattrs[i].value);
    }
    if (result == 0 && entry.type == '0')
        result = write_file(packer, parent, name, &entry, err);
    if (result < 0 || type != '5')
        return result;
    AUTO_CLOSE int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fail(err, errno, "diff", "open %s", path);
    char opaque = 0;
    if (fgetxattr(fd, "trusted.overlay.opaque", &opaque, 1) == 1 && opaque == 'y' && write_marker(packer, path, ".wh..wh..opq", mtime, err) < 0)
        return -1;
    return pack_directory(packer, fd, path, err);
}

static int pack_directory(struct packer *packer, int fd, const char *prefix, struct error *err) {
    char **names = names_read(fd, prefix, err);
    int result = names == NULL ? -1 : 0;
    for (char **name = names; result == 0 && *name != NULL; name++)
        result = pack_entry(packer, fd, prefix, *name, err);
    names_free(names);
    return result;
}

int job_diff(struct job *job, char *result, size_t size, struct error *err) {
    const char *epoch = job_option(job, "--epoch");
    struct packer packer = {.job = job, .epoch = epoch ? strtoll(epoch, NULL, 10) : -1};
    const char *directory = job_option(job, "--dir");
    AUTO_CLOSE int fd = directory ? open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (fd < 0)
        return fail(err, errno, "diff", "open %s", directory ? directory : "(nothing)");
    if (pack_directory(&packer, fd, "", err) < 0 || archive_write_end(job, err) < 0)
        return -1;
    snprintf(result, size, "entries=%llu", (unsigned long long)packer.entries);
    return 0;
}
