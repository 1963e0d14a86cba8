/*
 * list (--dir DIR | --lower DIR…) [--hash] -- PATH…: what is below the paths, as `TYPE MODE UID GID SIZE SHA256` NUL path NUL link NUL,
 * in name order. cat … -- PATH: one file's content.
 */
#include "job.h"
#include "names.h"
#include "../kernel/inroot.h"

#include <errno.h>
#include <fcntl.h>
/* The plain functions link without the provider machinery, which a static program has no use for. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK (256 * 1024)

static int hash_file(int parent, const char *name, char text[65], struct error *err) {
    static uint8_t chunk[CHUNK];
    uint8_t digest[32];
    AUTO_CLOSE int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    SHA256_CTX context;
    ssize_t count = -1;
    if (fd >= 0 && SHA256_Init(&context)) {
        while ((count = read(fd, chunk, sizeof chunk)) > 0)
            SHA256_Update(&context, chunk, (size_t)count);
        SHA256_Final(digest, &context);
    }
    if (count < 0)
        return fail(err, errno, "list", "read %s", name);
    for (int i = 0; i < 32; i++)
        sprintf(text + 2 * i, "%02x", digest[i]);
    return 0;
}

static int list_entry(struct job *job, int parent, const char *name, const char *path, bool hash, struct error *err);

static int list_directory(struct job *job, int fd, const char *path, bool hash, struct error *err) {
    char **names = names_read(fd, path, err);
    int result = names == NULL ? -1 : 0;
    for (char **name = names; result == 0 && *name != NULL; name++) {
        AUTO_FREE char *below = NULL;
        result = asprintf(&below, "%s%s%s", path, path[0] ? "/" : "", *name) < 0 ? fail(err, ENOMEM, "list", "allocate") : list_entry(job, fd, *name, below, hash, err);
    }
    names_free(names);
    return result;
}

static int list_entry(struct job *job, int parent, const char *name, const char *path, bool hash, struct error *err) {
    struct stat status;
    char digest[65] = "-", link[4096] = "", line[256];
    if (fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(err, errno, "list", "stat %s", path);
    mode_t mode = status.st_mode;
    char type = S_ISREG(mode) ? 'f' : S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'l' : S_ISSOCK(mode) ? 's' : 'o';
    if (type == 'l' && readlinkat(parent, name, link, sizeof link - 1) < 0)
        return fail(err, errno, "list", "read link %s", path);
    if (type == 'f' && hash && hash_file(parent, name, digest, err) < 0)
        return -1;
    int length = snprintf(line, sizeof line, "%c %o %u %u %llu %s", type, mode & 07777, status.st_uid, status.st_gid, (unsigned long long)status.st_size, digest);
    if (job_write(job, line, (size_t)length + 1, err) < 0 || job_write(job, path, strlen(path) + 1, err) < 0 || job_write(job, link, strlen(link) + 1, err) < 0)
        return -1;
    if (type != 'd')
        return 0;
    AUTO_CLOSE int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? fail(err, errno, "list", "open %s", path) : list_directory(job, fd, path, hash, err);
}

/* Links on the way to a path lead inside the tree; a link at its end does too. */
static int list_path(struct job *job, int root, const char *path, bool hash, struct error *err) {
    AUTO_CLOSE int fd = open_in_root(root, path[0] ? path : "/", O_RDONLY | O_NONBLOCK, 0);
    struct stat status;
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 || fstat(fd, &status) < 0)
        return fail(err, errno, "list", "open %s", path);
    if (S_ISDIR(status.st_mode)) {
        char line[256];
        int length = snprintf(line, sizeof line, "d %o %u %u 0 -", status.st_mode & 07777, status.st_uid, status.st_gid);
        if (path[0] != 0 && (job_write(job, line, (size_t)length + 1, err) < 0 || job_write(job, path, strlen(path) + 1, err) < 0 || job_write(job, "", 1, err) < 0))
            return -1;
        return list_directory(job, fd, path, hash, err);
    }
    AUTO_FREE char *directory = strdup(path);
    char *slash = strrchr(directory, '/');
    if (slash != NULL)
        *slash = 0;
    AUTO_CLOSE int parent = open_in_root(root, slash ? directory : "/", O_RDONLY | O_DIRECTORY, 0);
    return parent < 0 ? fail(err, errno, "list", "open %s", path) : list_entry(job, parent, slash ? slash + 1 : path, path, hash, err);
}

int job_list(struct job *job, char *result, size_t size, struct error *err) {
    AUTO_CLOSE int root = root_open(job, false, err);
    bool hash = job_flag(job, "--hash");
    if (root < 0)
        return -1;
    for (int i = job_operands(job); i < job->argument_count; i++) {
        if (list_path(job, root, job->arguments[i], hash, err) < 0)
            return -1;
    }
    snprintf(result, size, "done");
    return job_flush(job, err);
}

int job_cat(struct job *job, char *result, size_t size, struct error *err) {
    static uint8_t chunk[CHUNK];
    AUTO_CLOSE int root = root_open(job, false, err);
    int operand = job_operands(job);
    if (root < 0 || operand >= job->argument_count)
        return root < 0 ? -1 : fail(err, EINVAL, "cat", "no path");
    AUTO_CLOSE int fd = open_in_root(root, job->arguments[operand], O_RDONLY | O_NONBLOCK, 0);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0)
        return fail(err, errno, "cat", "open %s", job->arguments[operand]);
    if (!S_ISREG(status.st_mode))
        return fail(err, EINVAL, "cat", "%s is no regular file", job->arguments[operand]);
    for (ssize_t count; (count = read(fd, chunk, sizeof chunk)) != 0;) {
        if (count < 0 || job_write(job, chunk, (size_t)count, err) < 0)
            return count < 0 ? fail(err, errno, "cat", "read %s", job->arguments[operand]) : -1;
    }
    snprintf(result, size, "size=%llu", (unsigned long long)status.st_size);
    return job_flush(job, err);
}
