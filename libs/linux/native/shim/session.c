#include "shim.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE (64 * 1024)

struct session *session_add(struct shim *shim, int fd) {
    struct session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        close(fd);
        return NULL;
    }
    session->fd = fd;
    session->source = (struct source){.kind = SOURCE_SESSION, .owner = session};
    session->task = shim->main;
    session->next = shim->sessions;
    shim->sessions = session;
    session_update(shim, session);
    return session;
}

void session_send(struct session *session, uint8_t type, const void *payload, size_t length) {
    uint8_t header[FRAME_HEADER] = {type, 0, 0, 0, (uint8_t)(length >> 24), (uint8_t)(length >> 16), (uint8_t)(length >> 8), (uint8_t)length};
    if (session->closed)
        return;
    if (buffer_append(&session->out, header, sizeof header) < 0 || buffer_append(&session->out, payload, length) < 0)
        session->closed = true; /* out of memory: a cut connection is better than a torn stream */
}

void session_send_error(struct session *session, uint8_t type, const struct error *err) {
    char text[sizeof err->step + sizeof err->text + 32];
    int length = snprintf(text, sizeof text, "%d\n%s\n%s", err->number, err->step, err->text);
    session_send(session, type, text, (size_t)length);
}

void session_send_started(struct session *session, const struct process *process) {
    char text[128];
    int length = snprintf(text, sizeof text, "%d\n%llu\n%llu", process->pid, (unsigned long long)process->start_ticks,
                          (unsigned long long)process->started_ns);
    session_send(session, FRAME_STARTED, text, (size_t)length);
}

void session_flush(struct shim *shim, struct session *session) {
    while (session->out.used > 0 && !session->closed) {
        ssize_t count = send(session->fd, buffer_front(&session->out), session->out.used, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count > 0)
            buffer_take(&session->out, (size_t)count);
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            session->closed = true;
    }
    session_update(shim, session);
}

void session_update(struct shim *shim, struct session *session) {
    if (session->closed)
        return;
    bool is_fed_up = session->task != NULL && session->task->input.used > INPUT_HIGH_WATER;
    uint32_t interest = (is_fed_up ? 0 : EPOLLIN) | (session->out.used > 0 ? EPOLLOUT : 0) | EPOLLRDHUP;
    watch(shim, &session->source, session->fd, interest);
}

static void reply(struct session *session, int result, const char *what) {
    struct error err;
    if (result == 0) {
        session_send(session, FRAME_OK, NULL, 0);
        return;
    }
    fail(&err, errno, "control", "%s", what);
    session_send_error(session, FRAME_REFUSED, &err);
}

static uint32_t load_u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void send_signal(struct session *session, const uint8_t *payload, size_t length) {
    struct task *task = session->task;
    errno = ESRCH;
    /* Reaped tasks are never signalled: their pid may be another's by now. */
    int result = length == 4 && task != NULL && !task->exited ? kill(task->process.pid, (int)load_u32(payload)) : -1;
    reply(session, result, "signal");
}

static void resize(struct session *session, const uint8_t *payload, size_t length) {
    struct task *task = session->task;
    errno = ENOTTY;
    int result = -1;
    if (length == 4 && task != NULL && task->plan.tty && task->process.output >= 0) {
        struct winsize size = {.ws_row = (uint16_t)(payload[0] | payload[1] << 8), .ws_col = (uint16_t)(payload[2] | payload[3] << 8)};
        result = ioctl(task->process.output, TIOCSWINSZ, &size);
    }
    reply(session, result, "resize");
}

static void start_exec(struct shim *shim, struct session *session, const uint8_t *payload, size_t length) {
    struct error err;
    char warning[512] = "";
    struct task *task = task_add(shim);
    if (task == NULL) {
        fail(&err, ENOMEM, "start", "allocate");
        session_send_error(session, FRAME_FAILED, &err);
        return;
    }
    task->exited = task->reported = true; /* until it runs */
    task->plan_buffer = malloc(length + 1);
    bool decoded = task->plan_buffer != NULL;
    if (decoded) {
        memcpy(task->plan_buffer, payload, length);
        decoded = plan_decode(&task->plan, task->plan_buffer, (uint32_t)length, true, &err) == 0;
    } else {
        fail(&err, ENOMEM, "start", "allocate");
    }
    if (decoded && shim->main->exited) {
        fail(&err, ESRCH, "start", "the container has ended");
        decoded = false;
    }
    if (!decoded || process_exec(&task->process, &task->plan, &shim->main->process, &shim->main->plan, warning, sizeof warning, &err) < 0) {
        task->output_ended = task->error_ended = true;
        session_send_error(session, FRAME_FAILED, &err);
        return;
    }
    task->exited = task->reported = false;
    task->error_ended = task->process.error < 0;
    session->task = task;
    session->attached = ATTACH_STDIN | ATTACH_STDOUT | ATTACH_STDERR;
    if (warning[0] != 0)
        session_send(session, FRAME_WARNING, warning, strlen(warning));
    session_send_started(session, &task->process);
    task_update(shim, task);
}

static void attach(struct shim *shim, struct session *session, const uint8_t *payload, size_t length) {
    session->attached = length == 1 ? payload[0] : 0;
    session_send(session, FRAME_OK, NULL, 0);
    if (session->task->reported)
        task_report(shim, session->task);
}

static void obey(struct shim *shim, struct session *session, uint8_t type, const uint8_t *payload, size_t length) {
    switch (type) {
    case FRAME_STDIN:
        if (!(session->attached & ATTACH_STDIN) || session->task == NULL)
            break;
        if (length == 0)
            task_end_input(shim, session->task);
        else
            task_feed(shim, session->task, payload, length);
        break;
    case FRAME_STATE:
        session_send_started(session, &session->task->process);
        break;
    case FRAME_SIGNAL:
        send_signal(session, payload, length);
        break;
    case FRAME_RESIZE:
        resize(session, payload, length);
        break;
    case FRAME_ATTACH:
        attach(shim, session, payload, length);
        break;
    case FRAME_WAIT:
        session->waits = true;
        session_send(session, FRAME_OK, NULL, 0);
        if (session->task->reported)
            task_report(shim, session->task);
        break;
    case FRAME_RELEASE:
        task_release(shim, shim->main);
        session_send(session, FRAME_OK, NULL, 0);
        break;
    case FRAME_EXEC:
        start_exec(shim, session, payload, length);
        break;
    default:
        errno = EPROTO;
        reply(session, -1, "unknown frame");
    }
}

static void leave(struct shim *shim, struct session *session) {
    struct task *task = session->task;
    session->closed = true;
    if (session->is_launcher)
        task_release(shim, shim->main);
    if (task != NULL && session->attached & ATTACH_STDIN && (task != shim->main || task->plan.stdin_once))
        task_end_input(shim, task);
    if (task != NULL)
        task_update(shim, task);
}

void session_read(struct shim *shim, struct session *session) {
    static uint8_t chunk[READ_SIZE];
    ssize_t count = recv(session->fd, chunk, sizeof chunk, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0 || buffer_append(&session->in, chunk, (size_t)count) < 0) {
        leave(shim, session);
        return;
    }
    while (session->in.used >= FRAME_HEADER && !session->closed) {
        const uint8_t *frame = buffer_front(&session->in);
        size_t length = (size_t)frame[4] << 24 | (size_t)frame[5] << 16 | (size_t)frame[6] << 8 | frame[7];
        if (length > PLAN_MAX) {
            leave(shim, session);
            return;
        }
        if (session->in.used < FRAME_HEADER + length)
            break;
        obey(shim, session, frame[0], frame + FRAME_HEADER, length);
        buffer_take(&session->in, FRAME_HEADER + length);
    }
    session_flush(shim, session);
}

void sessions_sweep(struct shim *shim) {
    for (struct session **link = &shim->sessions; *link != NULL;) {
        struct session *session = *link;
        if (!session->closed) {
            link = &session->next;
            continue;
        }
        *link = session->next;
        watch(shim, &session->source, session->fd, 0);
        close(session->fd);
        buffer_free(&session->in);
        buffer_free(&session->out);
        struct task *task = session->task;
        free(session);
        if (task != NULL)
            task_update(shim, task);
    }
}
