#include "job.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <net/if.h>
#include <unistd.h>

#define REPLY_MAX (1 << 16)
#define TIMEOUT_S 10

/* The calling thread's own network namespace, to go back to. */
static int own_namespace(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%ld/ns/net", syscall(SYS_gettid));
    return open(path, O_RDONLY | O_CLOEXEC);
}

static int open_socket(struct job *job, const char *namespace_path) {
    int home = -1;
    if (namespace_path[0] != 0) {
        home = own_namespace();
        int target = open(namespace_path, O_RDONLY | O_CLOEXEC);
        int entered = home >= 0 && target >= 0 ? setns(target, CLONE_NEWNET) : -1;
        int number = errno;
        if (target >= 0)
            close(target);
        if (entered < 0) {
            if (home >= 0)
                close(home);
            return job_fail(job, number, "enter network namespace %s", namespace_path);
        }
    }
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    int number = errno;
    if (home >= 0) {
        /* A pool thread in a container's namespace would poison every later call. */
        if (setns(home, CLONE_NEWNET) < 0)
            abort();
        close(home);
    }
    if (fd < 0)
        return job_fail(job, number, "open a netlink socket");
    struct timeval timeout = {.tv_sec = TIMEOUT_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    int on = 1;
    setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
    return fd;
}

static int keep(struct job *job, const void *bytes, size_t length) {
    uint8_t *output = realloc(job->output, job->output_length + length);
    if (output == NULL)
        return job_fail(job, ENOMEM, "netlink reply");
    memcpy(output + job->output_length, bytes, length);
    job->output = output;
    job->output_length += length;
    return 0;
}

/* One request and everything that answers it. 0, or the kernel's errno. */
static int exchange(struct job *job, int fd, const struct nlmsghdr *request) {
    static _Thread_local uint8_t reply[REPLY_MAX];
    if (send(fd, request, request->nlmsg_len, 0) < 0)
        return errno;
    for (;;) {
        ssize_t length = recv(fd, reply, sizeof reply, 0);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0)
            return errno;
        size_t left = (size_t)length;
        for (struct nlmsghdr *message = (struct nlmsghdr *)reply; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
            if (message->nlmsg_seq != request->nlmsg_seq)
                continue;
            if (message->nlmsg_type == NLMSG_DONE)
                return 0;
            if (message->nlmsg_type == NLMSG_ERROR)
                return -((struct nlmsgerr *)NLMSG_DATA(message))->error;
            if (keep(job, message, NLMSG_ALIGN(message->nlmsg_len)) < 0)
                return ENOMEM;
        }
    }
}

/*
 * (namespacePath or "", requests): sends whole rtnetlink messages one after the other, waits for each one's end, and gives back what
 * they answered. Stops at the first that fails; the message tells which (from 0).
 */
void netlink_transact(struct job *job) {
    int fd = open_socket(job, job->strings[0]);
    if (fd < 0)
        return;
    size_t left = job->input_length;
    int index = 0;
    for (const struct nlmsghdr *request = (struct nlmsghdr *)job->input; NLMSG_OK(request, left); index++) {
        int error = exchange(job, fd, request);
        if (error != 0) {
            job_fail(job, error, "netlink request %d (type %u)", index, request->nlmsg_type);
            break;
        }
        size_t step = NLMSG_ALIGN(request->nlmsg_len);
        if (step >= left)
            break;
        left -= step;
        request = (const struct nlmsghdr *)((const uint8_t *)request + step);
    }
    close(fd);
}

static int bring_loopback_up(void) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int result = fd < 0 ? -1 : ioctl(fd, SIOCSIFFLAGS, &request);
    if (fd >= 0)
        close(fd);
    return result;
}

/* (path): a new network namespace, its loopback up, kept alive by a bind mount on the path, which is made. */
void netns_create(struct job *job) {
    const char *path = job->strings[0];
    int file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) {
        job_fail(job, errno, "make %s", path);
        return;
    }
    close(file);
    int home = own_namespace();
    if (home < 0 || unshare(CLONE_NEWNET) < 0) {
        job_fail(job, errno, "make a network namespace");
    } else {
        char self[64];
        snprintf(self, sizeof self, "/proc/self/task/%ld/ns/net", syscall(SYS_gettid));
        if (mount(self, path, NULL, MS_BIND, NULL) < 0 || bring_loopback_up() < 0)
            job_fail(job, errno, "pin a network namespace on %s", path);
        if (setns(home, CLONE_NEWNET) < 0)
            abort();
    }
    if (home >= 0)
        close(home);
    if (job->error) {
        umount2(path, MNT_DETACH);
        unlink(path);
    }
}

/* (path): gives the namespace up; it ends with its last process. Idempotent. */
void netns_delete(struct job *job) {
    const char *path = job->strings[0];
    if (umount2(path, MNT_DETACH) < 0 && errno != EINVAL && errno != ENOENT)
        job_fail(job, errno, "unmount %s", path);
    else if (unlink(path) < 0 && errno != ENOENT)
        job_fail(job, errno, "remove %s", path);
}
