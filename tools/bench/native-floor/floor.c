/*
 * The kernel's floor: one process into all namespaces, its root an overlay with proc, dev and sys, pivot_root, exec, wait.
 * floor LOWER UPPER WORK ROOT COUNT: prints the median in microseconds.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char options[8192];

static void child(const char *root) {
    char path[4096];
    if (mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) || mount("overlay", root, "overlay", 0, options))
        _exit(101);
    const char *targets[][2] = {{"proc", "proc"}, {"tmpfs", "dev"}, {"sysfs", "sys"}};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", root, targets[i][1]);
        mkdir(path, 0755);
        if (mount(targets[i][0], path, targets[i][0], 0, NULL))
            _exit(102);
    }
    if (chdir(root) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH))
        _exit(103);
    char *argv[] = {"/bin/busybox", "true", NULL};
    execv(argv[0], argv);
    _exit(104);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    if (argc != 6)
        return 2;
    int count = atoi(argv[5]);
    double *times = calloc((size_t)count, sizeof *times);
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", argv[1], argv[2], argv[3]);
    for (int i = 0; i < count; i++) {
        struct timespec begin, end;
        int status;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        struct clone_args args = {.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP, .exit_signal = SIGCHLD};
        long pid = syscall(SYS_clone3, &args, sizeof args);
        if (pid == 0)
            child(argv[4]);
        waitpid((pid_t)pid, &status, 0);
        clock_gettime(CLOCK_MONOTONIC, &end);
        if (status != 0) {
            fprintf(stderr, "the process ended with %d\n", WEXITSTATUS(status));
            return 1;
        }
        times[i] = (double)(end.tv_sec - begin.tv_sec) * 1e6 + (double)(end.tv_nsec - begin.tv_nsec) / 1e3;
    }
    qsort(times, (size_t)count, sizeof *times, compare);
    printf("%.0f\n", times[count / 2]);
    return 0;
}
