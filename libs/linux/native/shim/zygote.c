/*
 * gantry-zygote LISTEN_PATH: forks a shim for every connection, so that starting a container never forks the agent's large
 * process. It lives as long as its standard input is open, which is as long as its agent; the shims outlive both.
 */
#include "../kernel/error.h"
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SEALED_NAME "gantry-zygote"

/*
 * CVE-2019-5736: a container can reach this program by /proc/PID/exe at the moment a process enters it. It therefore runs from a
 * sealed copy in memory: there is no file of the host behind that link.
 */
static void run_sealed(char **argv) {
    int seals = fcntl(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), F_GET_SEALS);
    if (seals > 0 && seals & F_SEAL_WRITE)
        return;
    int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int copy = memfd_create(SEALED_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct stat status;
    if (self < 0 || copy < 0 || fstat(self, &status) < 0)
        goto failed;
    for (off_t left = status.st_size; left > 0;) {
        ssize_t count = sendfile(copy, self, NULL, (size_t)left);
        if (count <= 0)
            goto failed;
        left -= count;
    }
    if (fchmod(copy, 0500) == 0 && fcntl(copy, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0)
        fexecve(copy, argv, environ);
failed:
    fprintf(stderr, "gantry-zygote: cannot run from a sealed copy: %s\n", strerror(errno));
    exit(1);
}

static int listen_on(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(path);
    umask(0177);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 512) < 0)
        return -1;
    umask(022);
    return listener;
}

/* In the child: nothing of the zygote's is left but the connection. */
static _Noreturn void become_shim(int connection) {
    setsid();
    signal(SIGCHLD, SIG_DFL);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    int kept = dup2(connection, 3);
    fcntl(kept, F_SETFD, FD_CLOEXEC);
    close_range(4, ~0u, 0);
    shim_main(kept);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: gantry-zygote LISTEN_PATH\n");
        return 2;
    }
    run_sealed(argv);
    /* Not even root of a container may trace or inspect a process on its way in. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN); /* shims are reaped by the kernel */
    signal(SIGINT, SIG_IGN);  /* a terminal's ^C is the supervisor's business */
    int listener = listen_on(argv[1]);
    if (listener < 0) {
        fprintf(stderr, "gantry-zygote: cannot listen on %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    if (write(STDOUT_FILENO, "ready\n", 6) != 6)
        return 1;
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return 1;
        char ignored[64];
        if (fds[0].revents && read(STDIN_FILENO, ignored, sizeof ignored) <= 0)
            return 0;
        if (!(fds[1].revents & POLLIN))
            continue;
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0)
            continue;
        if (fork() == 0)
            become_shim(connection);
        close(connection);
    }
}
