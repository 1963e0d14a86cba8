/*
 * gantry-layer LISTEN_PATH: work on file trees and layer archives, one forked process a connection, so that a hostile archive meets a
 * process that holds nothing else. It lives as long as its standard input is open.
 */
#include "job.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int job_cat(struct job *job, char *result, size_t size, struct error *err);

static const struct {
    const char *name;
    int (*run)(struct job *job, char *result, size_t size, struct error *err);
} JOBS[] = {{"apply", job_apply}, {"diff", job_diff}, {"list", job_list}, {"cat", job_cat}, {"copy", job_copy}, {"mkdir", job_mkdir}};

static int read_arguments(struct job *job, struct error *err) {
    uint32_t length;
    if (job_read(job, &length, sizeof length, err) < 0)
        return -1;
    if (length == 0 || length > JOB_ARGUMENTS_MAX || (job->argument_bytes = malloc(length)) == NULL)
        return fail(err, EINVAL, "job", "arguments of %u bytes", length);
    if (job_read(job, job->argument_bytes, length, err) < 0)
        return -1;
    if (job->argument_bytes[length - 1] != 0)
        return fail(err, EINVAL, "job", "arguments cut off");
    for (uint32_t i = 0; i < length; i++)
        job->argument_count += job->argument_bytes[i] == 0;
    job->arguments = calloc((size_t)job->argument_count + 1, sizeof *job->arguments);
    if (job->arguments == NULL)
        return fail(err, ENOMEM, "job", "allocate");
    char *at = job->argument_bytes;
    for (int i = 0; i < job->argument_count; i++, at += strlen(at) + 1)
        job->arguments[i] = at;
    return 0;
}

static int run(struct job *job, char *result, size_t size, struct error *err) {
    if (read_arguments(job, err) < 0)
        return -1;
    for (size_t i = 0; i < sizeof JOBS / sizeof *JOBS; i++) {
        if (strcmp(JOBS[i].name, job->arguments[0]) == 0)
            return JOBS[i].run(job, result, size, err);
    }
    return fail(err, EINVAL, "job", "unknown job %s", job->arguments[0]);
}

static _Noreturn void serve(int connection) {
    struct job job = {.connection = connection};
    struct error err = {0};
    char result[512] = "", failure[1024];
    signal(SIGCHLD, SIG_DFL);
    prctl(PR_SET_NAME, "gantry-layer", 0, 0, 0);
    if (run(&job, result, sizeof result, &err) == 0) {
        job_send(&job, FRAME_RESULT, result, strlen(result));
    } else {
        int length = snprintf(failure, sizeof failure, "%d\n%s\n%s", err.number, err.step, err.text);
        job_send(&job, FRAME_FAILED, failure, (size_t)length);
    }
    /* A caller that is still sending must get to read the answer before the connection is reset. */
    shutdown(connection, SHUT_WR);
    static char waste[65536];
    struct pollfd wait = {.fd = connection, .events = POLLIN};
    while (poll(&wait, 1, 5000) > 0 && read(connection, waste, sizeof waste) > 0)
        ;
    _exit(0);
}

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path) {
        fprintf(stderr, "usage: gantry-layer LISTEN_PATH\n");
        return 2;
    }
    strcpy(address.sun_path, argv[1]);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    unlink(argv[1]);
    umask(0177);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 128) < 0) {
        fprintf(stderr, "gantry-layer: cannot listen on %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    umask(022);
    if (write(STDOUT_FILENO, "ready\n", 6) != 6)
        return 1;
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return 1;
        char ignored[64];
        if (fds[0].revents && read(STDIN_FILENO, ignored, sizeof ignored) <= 0)
            return 0;
        int connection = fds[1].revents & POLLIN ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (connection < 0)
            continue;
        if (fork() == 0) {
            close(listener);
            serve(connection);
        }
        close(connection);
    }
}
