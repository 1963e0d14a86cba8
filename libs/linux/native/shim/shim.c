#include "shim.h"

#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SOCKET_NAME "shim.sock"
#define EXIT_NAME "exit"
/* After the container's end: how long something that outlived it may hold its output open … */
#define OUTPUT_GRACE_MS 2000
/* … and how long a client may take to read the rest. */
#define DRAIN_GRACE_MS 10000
#define PLAN_TIMEOUT_S 10

uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int watch(struct shim *shim, struct source *source, int fd, uint32_t interest) {
    if (source->interest == interest || fd < 0)
        return 0;
    struct epoll_event event = {.events = interest, .data.ptr = source};
    int operation = interest == 0 ? EPOLL_CTL_DEL : source->interest == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    int result = epoll_ctl(shim->epoll, operation, fd, &event);
    if (result == 0)
        source->interest = interest;
    return result;
}

static int read_whole(int fd, void *to, size_t length) {
    for (size_t used = 0; used < length;) {
        ssize_t count = read(fd, (uint8_t *)to + used, length - used);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            errno = count == 0 ? ECONNRESET : errno;
            return -1;
        }
        used += (size_t)count;
    }
    return 0;
}

static int read_plan(int connection, struct task *task, struct error *err) {
    struct timeval timeout = {.tv_sec = PLAN_TIMEOUT_S};
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    uint32_t header[2];
    if (read_whole(connection, header, sizeof header) < 0)
        return fail(err, errno, "plan", "read the plan");
    if (header[0] != PLAN_MAGIC || header[1] > PLAN_MAX)
        return fail(err, EPROTO, "plan", "not a plan of this version");
    task->plan_buffer = malloc(header[1] + 1);
    if (task->plan_buffer == NULL || read_whole(connection, task->plan_buffer, header[1]) < 0)
        return fail(err, errno, "plan", "read the plan");
    return plan_decode(&task->plan, task->plan_buffer, header[1], false, err);
}

/* The socket on which an agent finds its container again; relative, as sun_path is short. */
static int listen_here(struct shim *shim, const char *run_dir, struct error *err) {
    if (chdir(run_dir) < 0)
        return fail(err, errno, "socket", "enter %s", run_dir);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET_NAME};
    shim->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(SOCKET_NAME);
    unlink(EXIT_NAME);
    umask(0177);
    if (shim->listener < 0 || bind(shim->listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(shim->listener, 64) < 0)
        return fail(err, errno, "socket", "listen on %s/%s", run_dir, SOCKET_NAME);
    umask(022);
    return 0;
}

/* Written whole or not at all, before anyone hears of the end. */
static void write_exit(const struct task *task) {
    FILE *file = fopen(EXIT_NAME ".tmp", "we");
    if (file == NULL)
        return;
    int code = WIFEXITED(task->status) ? WEXITSTATUS(task->status) : 128 + WTERMSIG(task->status);
    fprintf(file, "code=%d\nsignal=%d\noom=%d\nfinished=%llu\n", code, WIFSIGNALED(task->status) ? WTERMSIG(task->status) : 0,
            task->oom_killed, (unsigned long long)task->exited_ns);
    if (fclose(file) == 0)
        rename(EXIT_NAME ".tmp", EXIT_NAME);
}

static int make_loop(struct shim *shim, struct error *err) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    shim->epoll = epoll_create1(EPOLL_CLOEXEC);
    shim->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (shim->epoll < 0 || shim->signals < 0)
        return fail(err, errno, "start", "make the event loop");
    shim->signal_source = (struct source){.kind = SOURCE_SIGNALS};
    shim->listener_source = (struct source){.kind = SOURCE_LISTENER};
    watch(shim, &shim->signal_source, shim->signals, EPOLLIN);
    return 0;
}

/* Everything up to the running process. What was made on the way is taken back where a later step fails. */
static int launch(struct shim *shim, int connection, char *warning, size_t warning_size, struct error *err) {
    struct task *task = shim->main = task_add(shim);
    if (task == NULL)
        return fail(err, ENOMEM, "start", "allocate");
    if (read_plan(connection, task, err) < 0 || make_loop(shim, err) < 0 || listen_here(shim, task->plan.run_dir, err) < 0)
        return -1;
    if (task->plan.log_path != NULL) {
        if (log_open(&shim->log, task->plan.log_path, task->plan.log_max_size, task->plan.log_max_files, err) < 0)
            return -1;
        task->log = &shim->log;
        shim->has_log = true;
    }
    if (cgroup_create(&task->plan, err) == 0 &&
        process_start(&task->process, &task->plan, warning, warning_size, err) == 0)
        return 0;
    if (task->process.pid > 0)
        waitpid(task->process.pid, NULL, 0);
    cgroup_remove(&task->plan);
    rmdir("rootfs");
    unlink(SOCKET_NAME);
    return -1;
}

static struct task *task_of(struct shim *shim, pid_t pid) {
    for (struct task *task = shim->tasks; task != NULL; task = task->next) {
        if (task->process.pid == pid && !task->exited)
            return task;
    }
    return NULL;
}

static void reap(struct shim *shim) {
    struct signalfd_siginfo info;
    while (read(shim->signals, &info, sizeof info) > 0)
        ;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        struct task *task = task_of(shim, pid);
        if (task == NULL)
            continue;
        task->exited = true;
        task->status = status;
        task->exited_ns = clock_ns();
        if (task == shim->main)
            shim->drain_until_ms = now_ms() + OUTPUT_GRACE_MS;
    }
}

/* The container's end: everything is cleared away before anyone hears of it. */
static void finish(struct shim *shim) {
    struct task *task = shim->main;
    shim->finished = true;
    if (shim->has_log) {
        log_finish(&shim->log, FRAME_STDOUT);
        log_finish(&shim->log, FRAME_STDERR);
    }
    task->oom_killed = cgroup_oom_killed(&task->plan);
    cgroup_remove(&task->plan);
    rmdir("rootfs");
    write_exit(task);
    watch(shim, &shim->listener_source, shim->listener, 0);
    close(shim->listener);
    unlink(SOCKET_NAME);
    task_report(shim, task);
    shim->exit_until_ms = now_ms() + DRAIN_GRACE_MS;
}

static void settle(struct shim *shim) {
    for (struct task *task = shim->tasks; task != NULL; task = task->next) {
        if (!task->exited || task->reported || task == shim->main)
            continue;
        task_drain(shim, task);
        task_report(shim, task);
    }
    struct task *task = shim->main;
    if (shim->finished || !task->exited)
        return;
    if (task->held && now_ms() >= shim->drain_until_ms)
        task_release(shim, task);
    else if (task->held)
        return;
    if ((task->output_ended && task->error_ended) || now_ms() >= shim->drain_until_ms)
        finish(shim);
}

static bool is_drained(const struct shim *shim) {
    for (const struct session *session = shim->sessions; session != NULL; session = session->next) {
        if (session->out.used > 0 && !session->closed)
            return false;
    }
    return true;
}

static void accept_session(struct shim *shim) {
    int fd = accept4(shim->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        session_add(shim, fd);
}

static void dispatch(struct shim *shim, struct source *source, uint32_t events) {
    switch (source->kind) {
    case SOURCE_LISTENER:
        accept_session(shim);
        break;
    case SOURCE_SIGNALS:
        reap(shim);
        break;
    case SOURCE_OUTPUT:
        task_read(shim, source->owner, FRAME_STDOUT);
        break;
    case SOURCE_ERROR:
        task_read(shim, source->owner, FRAME_STDERR);
        break;
    case SOURCE_INPUT:
        task_write(shim, source->owner);
        break;
    case SOURCE_SESSION: {
        struct session *session = source->owner;
        if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
            session_read(shim, session);
        if (events & EPOLLOUT && !session->closed)
            session_flush(shim, session);
        if (session->task != NULL)
            task_update(shim, session->task);
        break;
    }
    }
}

static int next_timeout(const struct shim *shim) {
    uint64_t until = shim->finished ? shim->exit_until_ms : shim->main->exited ? shim->drain_until_ms : 0;
    if (until == 0)
        return -1;
    uint64_t now = now_ms();
    return until > now ? (int)(until - now) : 0;
}

static _Noreturn void serve(struct shim *shim) {
    struct epoll_event events[16];
    for (;;) {
        settle(shim);
        sessions_sweep(shim);
        if (shim->finished && (is_drained(shim) || now_ms() >= shim->exit_until_ms))
            _exit(0);
        int count = epoll_wait(shim->epoll, events, 16, next_timeout(shim));
        for (int i = 0; i < count; i++)
            dispatch(shim, events[i].data.ptr, events[i].events);
    }
}

_Noreturn void shim_main(int connection) {
    struct shim shim = {.epoll = -1, .listener = -1, .signals = -1};
    struct error err;
    char warning[512] = "";
    prctl(PR_SET_NAME, "gantry-shim", 0, 0, 0);
    /* Grandchildren whose parents die belong to the shim, not to the host's init. */
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    bool launched = launch(&shim, connection, warning, sizeof warning, &err) == 0;
    struct timeval none = {0};
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
    fcntl(connection, F_SETFL, O_NONBLOCK);
    if (!launched) {
        struct session session = {.fd = connection};
        session_send_error(&session, FRAME_FAILED, &err);
        ssize_t sent = send(connection, buffer_front(&session.out), session.out.used, MSG_NOSIGNAL);
        _exit(sent < 0 ? 2 : 1);
    }
    struct task *task = shim.main;
    task->error_ended = task->process.error < 0;
    task->held = task->plan.hold;
    struct session *session = session_add(&shim, connection);
    if (session != NULL) {
        session->waits = session->is_launcher = true;
        if (warning[0] != 0)
            session_send(session, FRAME_WARNING, warning, strlen(warning));
        session_send_started(session, &task->process);
        session_flush(&shim, session);
    }
    watch(&shim, &shim.listener_source, shim.listener, EPOLLIN);
    task_update(&shim, task);
    serve(&shim);
}
