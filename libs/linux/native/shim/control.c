#include "process.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A start that takes longer than this hangs on something that will not come (a dead network file system, say). */
#define START_TIMEOUT_MS 60000

struct message {
    char kind;
    char padding[7];
    union {
        struct error error;
        char text[sizeof(struct error)];
        int64_t pid;
    } body;
};

void control_warn(int control, const char *format, ...) {
    struct message message = {.kind = CONTROL_WARNING};
    va_list args;
    va_start(args, format);
    vsnprintf(message.body.text, sizeof message.body.text, format, args);
    va_end(args);
    if (write(control, &message, sizeof message) < 0)
        return; /* the shim is gone, and with it, by PDEATHSIG, this process */
}

_Noreturn void control_fail(int control, const struct error *err) {
    struct message message = {.kind = CONTROL_ERROR, .body.error = *err};
    ssize_t sent = write(control, &message, sizeof message);
    _exit(sent < 0 ? 126 : 125);
}

int control_send_pid(int control, long pid) {
    struct message message = {.kind = CONTROL_PID, .body.pid = pid};
    return write(control, &message, sizeof message) == sizeof message ? 0 : -1;
}

int control_send_fd(int control, int fd) {
    struct message message = {.kind = CONTROL_PTY};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } ancillary = {0};
    struct iovec part = {.iov_base = &message, .iov_len = sizeof message};
    struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
    struct cmsghdr *header = CMSG_FIRSTHDR(&packet);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return sendmsg(control, &packet, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

/* One message with the descriptor it may carry. Returns its size, 0 at the end, -1 on failure. */
static ssize_t receive(int control, struct message *message, int *fd) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } ancillary = {0};
    struct iovec part = {.iov_base = message, .iov_len = sizeof *message};
    struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
    *fd = -1;
    struct pollfd wait = {.fd = control, .events = POLLIN};
    int ready = poll(&wait, 1, START_TIMEOUT_MS);
    if (ready == 0)
        errno = ETIMEDOUT;
    if (ready <= 0)
        return -1;
    ssize_t length = recvmsg(control, &packet, MSG_CMSG_CLOEXEC);
    struct cmsghdr *header = CMSG_FIRSTHDR(&packet);
    if (length > 0 && header != NULL && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(fd, CMSG_DATA(header), sizeof *fd);
    return length;
}

int control_await(int control, struct process *process, char *warning, size_t warning_size, struct error *err) {
    struct message message;
    for (;;) {
        int fd;
        ssize_t length = receive(control, &message, &fd);
        if (length == 0)
            return 0; /* closed by execve: the process runs */
        if (length < 0 && errno == EINTR)
            continue;
        if (length != sizeof message)
            return fail(err, length < 0 ? errno : EPROTO, "start", "the starting process does not answer");
        switch (message.kind) {
        case CONTROL_ERROR:
            *err = message.body.error;
            return -1;
        case CONTROL_WARNING:
            snprintf(warning, warning_size, "%.*s", (int)warning_size - 1, message.body.text);
            break;
        case CONTROL_PID:
            process->pid = (pid_t)message.body.pid;
            break;
        case CONTROL_PTY:
            process->output = fd;
            break;
        default:
            return fail(err, EPROTO, "start", "unknown message from the starting process");
        }
    }
}
