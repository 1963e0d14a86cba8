#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_file(const char *path, const char *value) {
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t length = strlen(value);
    return write(fd, value, length) == (ssize_t)length ? 0 : -1;
}

int cgroup_create(const struct plan *plan, struct error *err) {
    for (uint32_t i = 0; i < plan->cgroup_dirs.count; i++) {
        if (mkdir(plan->cgroup_dirs.items[i], 0755) < 0 && errno != EEXIST)
            return fail(err, errno, "cgroup", "make %s", plan->cgroup_dirs.items[i]);
    }
    for (uint32_t i = 0; i < plan->cgroup_write_count; i++) {
        const struct plan_write *entry = &plan->cgroup_writes[i];
        if (write_file(entry->path, entry->value) < 0 && !entry->optional)
            return fail(err, errno, "cgroup", "write \"%s\" to %s", entry->value, entry->path);
    }
    return 0;
}

int cgroup_enter(const struct plan *plan, struct error *err) {
    char path[4096];
    for (uint32_t i = 0; i < plan->cgroup_dirs.count; i++) {
        snprintf(path, sizeof path, "%s/cgroup.procs", plan->cgroup_dirs.items[i]);
        if (write_file(path, "0") < 0)
            return fail(err, errno, "cgroup", "enter %s", plan->cgroup_dirs.items[i]);
    }
    return 0;
}

/* Every process of the container is dead by now, or dies here: exec'ed ones live in the same directories. */
static void kill_remaining(const char *directory) {
    char path[4096];
    snprintf(path, sizeof path, "%s/cgroup.kill", directory);
    if (write_file(path, "1") == 0)
        return;
    snprintf(path, sizeof path, "%s/cgroup.procs", directory);
    FILE *procs = fopen(path, "re");
    if (procs == NULL)
        return;
    int pid;
    while (fscanf(procs, "%d", &pid) == 1)
        kill(pid, SIGKILL);
    fclose(procs);
}

void cgroup_remove(const struct plan *plan) {
    for (uint32_t i = 0; i < plan->cgroup_dirs.count; i++) {
        const char *directory = plan->cgroup_dirs.items[i];
        for (int attempt = 0; rmdir(directory) < 0 && errno == EBUSY && attempt < 70; attempt++) {
            kill_remaining(directory);
            usleep(attempt < 20 ? 100 : 2000); /* a dying task holds its cgroup for a moment */
        }
    }
}

/* Reads the number after `key ` in a flat-keyed file; -1 where there is none. */
static long read_key(const char *directory, const char *file, const char *key) {
    char path[4096], content[4096];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t length = read(fd, content, sizeof content - 1);
    if (length < 0)
        return -1;
    content[length] = 0;
    for (char *line = content; line != NULL; line = strchr(line, '\n')) {
        if (*line == '\n')
            line++;
        size_t size = strlen(key);
        if (strncmp(line, key, size) == 0 && line[size] == ' ')
            return strtol(line + size + 1, NULL, 10);
    }
    return -1;
}

bool cgroup_oom_killed(const struct plan *plan) {
    for (uint32_t i = 0; i < plan->cgroup_dirs.count; i++) {
        const char *directory = plan->cgroup_dirs.items[i];
        /* v2: memory.events (cgroup-v2.rst §Memory); v1: memory.oom_control has oom_kill since 4.13. */
        if (read_key(directory, "memory.events", "oom_kill") > 0 || read_key(directory, "memory.oom_control", "oom_kill") > 0)
            return true;
    }
    return false;
}
