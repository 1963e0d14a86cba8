#ifndef GANTRY_PROCESS_H
#define GANTRY_PROCESS_H

#include "plan.h"

#include <sys/types.h>

/* A process the shim has started: the container's own, or an exec's. Unused descriptors are -1. */
struct process {
    pid_t pid;
    int pidfd;
    int input;    /* where its standard input is written */
    int output;   /* standard output, or the pty master */
    int error;    /* standard error; -1 with a pty */
    uint64_t started_ns;
    uint64_t start_ticks; /* field 22 of /proc/PID/stat: tells this process from a later one with its pid */
};

/*
 * The child's end of a start. The control socket is close-on-exec: its end of file tells the shim that execve succeeded.
 * Messages are one byte of kind and a body.
 */
enum control_kind { CONTROL_ERROR = 'E', CONTROL_WARNING = 'W', CONTROL_PTY = 'P', CONTROL_PID = 'C' };

/* Starts the container's first process in its namespaces, cgroups and root. */
int process_start(struct process *process, const struct plan *plan, char *warning, size_t warning_size, struct error *err);
/* Starts one more process inside the container that `container` (with its plan) is. */
int process_exec(struct process *process, const struct plan *plan, const struct process *container,
                 const struct plan *container_plan, char *warning, size_t warning_size, struct error *err);
void process_close(struct process *process);

/* Used by both starts, in the child. */
struct stdio {
    int child[3];  /* what becomes 0, 1, 2 in the child */
    int parent[3]; /* the shim's ends */
};
int stdio_open(struct stdio *stdio, const struct plan *plan, struct error *err);
void stdio_close(int fds[3]);
/* Last steps of the child, once it is where it should be: terminal, identity, rights, filter, execve. Returns only on failure. */
int process_become(const struct plan *plan, struct stdio *stdio, int control, bool is_exec, struct error *err);
void control_warn(int control, const char *format, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void control_fail(int control, const struct error *err);
int control_await(int control, struct process *process, char *warning, size_t warning_size, struct error *err);
int control_send_fd(int control, int fd);
int control_send_pid(int control, long pid);

#endif
