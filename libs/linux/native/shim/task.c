#include "shim.h"

#include "cgroup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#define READ_SIZE (64 * 1024)

struct task *task_add(struct shim *shim) {
    struct task *task = calloc(1, sizeof *task);
    if (task == NULL)
        return NULL;
    task->process = (struct process){.pid = -1, .pidfd = -1, .input = -1, .output = -1, .error = -1};
    task->output = (struct source){.kind = SOURCE_OUTPUT, .owner = task};
    task->error = (struct source){.kind = SOURCE_ERROR, .owner = task};
    task->input_source = (struct source){.kind = SOURCE_INPUT, .owner = task};
    task->next = shim->tasks;
    shim->tasks = task;
    return task;
}

static int *stream_fd(struct task *task, int stream) {
    return stream == FRAME_STDOUT ? &task->process.output : &task->process.error;
}

static void end_stream(struct shim *shim, struct task *task, int stream) {
    int *fd = stream_fd(task, stream);
    watch(shim, stream == FRAME_STDOUT ? &task->output : &task->error, *fd, 0);
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    if (task->log != NULL)
        log_finish(task->log, stream);
    if (stream == FRAME_STDOUT)
        task->output_ended = true;
    else
        task->error_ended = true;
}

/* To the log first: what a client saw is never missing there. */
static void deliver(struct shim *shim, struct task *task, int stream, const uint8_t *bytes, size_t length) {
    if (task->log != NULL)
        log_append(task->log, stream, bytes, (uint32_t)length);
    uint32_t wanted = stream == FRAME_STDOUT ? ATTACH_STDOUT : ATTACH_STDERR;
    for (struct session *session = shim->sessions; session != NULL; session = session->next) {
        if (session->task == task && session->attached & wanted && !session->closed) {
            session_send(session, (uint8_t)stream, bytes, length);
            session_flush(shim, session);
        }
    }
}

/* One read of what is there. 1: some came, 0: nothing now, -1: the stream has ended. */
static int read_once(struct shim *shim, struct task *task, int stream) {
    static uint8_t chunk[READ_SIZE];
    int fd = *stream_fd(task, stream);
    if (fd < 0)
        return -1;
    ssize_t count = read(fd, chunk, sizeof chunk);
    if (count > 0) {
        deliver(shim, task, stream, chunk, (size_t)count);
        return 1;
    }
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    end_stream(shim, task, stream); /* a pty's master gives EIO when its last slave has closed */
    return -1;
}

void task_read(struct shim *shim, struct task *task, int stream) {
    read_once(shim, task, stream);
}

void task_drain(struct shim *shim, struct task *task) {
    while (read_once(shim, task, FRAME_STDOUT) > 0)
        ;
    while (read_once(shim, task, FRAME_STDERR) > 0)
        ;
}

static void close_input(struct shim *shim, struct task *task) {
    watch(shim, &task->input_source, task->process.input, 0);
    if (task->process.input >= 0)
        close(task->process.input);
    task->process.input = -1;
    buffer_free(&task->input);
}

void task_write(struct shim *shim, struct task *task) {
    while (task->input.used > 0 && task->process.input >= 0) {
        ssize_t count = write(task->process.input, buffer_front(&task->input), task->input.used);
        if (count > 0)
            buffer_take(&task->input, (size_t)count);
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            close_input(shim, task); /* nobody reads it any more */
    }
    /* A terminal has no half-close: its end of input is the ^D that the user types. */
    if (task->input_ended && task->input.used == 0 && !task->plan.tty)
        close_input(shim, task);
    task_update(shim, task);
}

void task_feed(struct shim *shim, struct task *task, const uint8_t *bytes, size_t length) {
    if (task->process.input < 0 || task->input_ended)
        return;
    if (buffer_append(&task->input, bytes, length) == 0)
        task_write(shim, task);
}

void task_end_input(struct shim *shim, struct task *task) {
    task->input_ended = true;
    task_write(shim, task);
}

static bool is_held_up(const struct shim *shim, const struct task *task) {
    for (const struct session *session = shim->sessions; session != NULL; session = session->next) {
        if (session->task == task && session->attached && !session->closed && session->out.used > SESSION_HIGH_WATER)
            return true;
    }
    return false;
}

/* Asks epoll for what is wanted now: output unless a client is slow, input only while some waits. */
void task_update(struct shim *shim, struct task *task) {
    uint32_t reading = task->held || is_held_up(shim, task) ? 0 : EPOLLIN;
    if (task->process.output >= 0)
        watch(shim, &task->output, task->process.output, reading);
    if (task->process.error >= 0)
        watch(shim, &task->error, task->process.error, reading);
    if (task->process.input >= 0)
        watch(shim, &task->input_source, task->process.input, task->input.used > 0 ? EPOLLOUT : 0);
}

void task_release(struct shim *shim, struct task *task) {
    task->held = false;
    task_update(shim, task);
}

static void put_u32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

/* Tells everyone concerned how the task ended: u32 code | u32 signal | u32 oom | u64 ns, little-endian. */
void task_report(struct shim *shim, struct task *task) {
    uint8_t payload[20];
    put_u32(payload, WIFEXITED(task->status) ? (uint32_t)WEXITSTATUS(task->status) : 128u + (uint32_t)WTERMSIG(task->status));
    put_u32(payload + 4, WIFSIGNALED(task->status) ? (uint32_t)WTERMSIG(task->status) : 0);
    put_u32(payload + 8, task->oom_killed);
    put_u32(payload + 12, (uint32_t)task->exited_ns);
    put_u32(payload + 16, (uint32_t)(task->exited_ns >> 32));
    task->reported = true;
    for (struct session *session = shim->sessions; session != NULL; session = session->next) {
        if (session->task != task || !(session->attached || session->waits))
            continue;
        session_send(session, FRAME_EXIT, payload, sizeof payload);
        session->attached = 0;
        session->waits = false;
        session_flush(shim, session);
    }
}
