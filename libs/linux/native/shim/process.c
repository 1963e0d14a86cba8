#include "process.h"

#include "cgroup.h"
#include "rootfs.h"
#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>
#include <grp.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define LAST_CAPABILITY 63

void process_close(struct process *process) {
    int *fds[] = {&process->pidfd, &process->input, &process->output, &process->error};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

void stdio_close(int fds[3]) {
    for (int i = 0; i < 3; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

int stdio_open(struct stdio *stdio, const struct plan *plan, struct error *err) {
    for (int i = 0; i < 3; i++)
        stdio->child[i] = stdio->parent[i] = -1;
    if (plan->tty)
        return 0; /* the child opens a pty of the container's own devpts */
    for (int i = 0; i < 3; i++) {
        int ends[2];
        if (i == 0 && !plan->open_stdin) {
            stdio->child[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
            if (stdio->child[0] < 0)
                return fail(err, errno, "stdio", "open /dev/null");
            continue;
        }
        if (pipe2(ends, O_CLOEXEC) < 0)
            return fail(err, errno, "stdio", "make a pipe");
        stdio->child[i] = ends[i == 0 ? 0 : 1];
        stdio->parent[i] = ends[i == 0 ? 1 : 0];
        fcntl(stdio->parent[i], F_SETFL, O_NONBLOCK);
        /* A pipe that a non-root process of the container can open again by /proc/self/fd/1, as with Docker. */
        if (i > 0)
            fcntl(stdio->parent[i], F_SETPIPE_SZ, 256 * 1024);
    }
    return 0;
}

/* A pty of the container's devpts: master to the shim, slave as standard streams and /dev/console. */
static int open_terminal(const struct plan *plan, struct stdio *stdio, int control, bool is_exec, struct error *err) {
    AUTO_CLOSE int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
    struct statfs fs;
    struct stat status;
    /* The container's own root could have put something else there (CVE-2025-52565). */
    if (master < 0 || fstatfs(master, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC || fstat(master, &status) < 0 ||
        status.st_rdev != makedev(5, 2))
        return fail(err, errno, "tty", "open a terminal in the container");
    int unlock = 0;
    struct winsize size = {.ws_row = plan->rows, .ws_col = plan->columns};
    if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
        return fail(err, errno, "tty", "unlock the terminal");
    if (plan->rows || plan->columns)
        ioctl(master, TIOCSWINSZ, &size);
    int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
        return fail(err, errno, "tty", "control the terminal");
    if (!is_exec) {
        AUTO_CLOSE int tree = (int)syscall(SYS_open_tree, slave, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
        AUTO_CLOSE int console = open("/dev/console", O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
        AUTO_CLOSE int target = open("/dev/console", O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (tree < 0 || target < 0 ||
            syscall(SYS_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
            return fail(err, errno, "tty", "bind /dev/console");
    }
    if (control_send_fd(control, master) < 0)
        return fail(err, errno, "tty", "hand over the terminal");
    for (int i = 0; i < 3; i++)
        stdio->child[i] = slave;
    return 0;
}

static int place_stdio(const struct stdio *stdio, struct error *err) {
    for (int i = 0; i < 3; i++) {
        if (dup2(stdio->child[i], i) < 0)
            return fail(err, errno, "stdio", "place stream %d", i);
    }
    return 0;
}

static int set_limits(const struct plan *plan, int control, struct error *err) {
    for (uint32_t i = 0; i < plan->rlimit_count; i++) {
        const struct plan_rlimit *wanted = &plan->rlimits[i];
        struct rlimit limit = {.rlim_cur = wanted->soft, .rlim_max = wanted->hard}, now;
        if (setrlimit((int)wanted->resource, &limit) == 0)
            continue;
        if (errno != EPERM || getrlimit((int)wanted->resource, &now) < 0)
            return fail(err, errno, "rlimit", "set limit %u", wanted->resource);
        /* Raising a hard limit takes CAP_SYS_RESOURCE, which some hosts withhold even from root. */
        limit.rlim_max = now.rlim_max;
        limit.rlim_cur = limit.rlim_cur > now.rlim_max ? now.rlim_max : limit.rlim_cur;
        if (setrlimit((int)wanted->resource, &limit) < 0)
            return fail(err, errno, "rlimit", "set limit %u", wanted->resource);
        control_warn(control, "this host does not let limit %u be raised above %llu", wanted->resource,
                     (unsigned long long)now.rlim_max);
    }
    return 0;
}

static int set_oom_score(const struct plan *plan, int control, struct error *err) {
    if (!plan->has_oom_score)
        return 0;
    AUTO_CLOSE int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    char text[16];
    int length = snprintf(text, sizeof text, "%d", plan->oom_score);
    if (fd >= 0 && write(fd, text, (size_t)length) == length)
        return 0;
    if (errno != EPERM && errno != EACCES)
        return fail(err, errno, "oom", "set oom_score_adj to %d", plan->oom_score);
    control_warn(control, "this host does not let oom_score_adj be lowered to %d", plan->oom_score);
    return 0;
}

static int drop_bounding(const struct plan *plan, struct error *err) {
    for (int cap = 0; cap <= LAST_CAPABILITY && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
        if (!(plan->bounding >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return fail(err, errno, "capabilities", "drop capability %d", cap);
    }
    return 0;
}

static int set_capabilities(const struct plan *plan, struct error *err) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2], now[2];
    if (syscall(SYS_capget, &header, now) < 0)
        return fail(err, errno, "capabilities", "read the capability sets");
    for (int i = 0; i < 2; i++) {
        /* What the host itself lacks can't be given. */
        data[i].permitted = (uint32_t)(plan->permitted >> (32 * i)) & now[i].permitted;
        data[i].effective = (uint32_t)(plan->effective >> (32 * i)) & data[i].permitted;
        data[i].inheritable = (uint32_t)(plan->inheritable >> (32 * i)) & now[i].permitted;
    }
    if (syscall(SYS_capset, &header, data) < 0)
        return fail(err, errno, "capabilities", "set the capability sets");
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int cap = 0; cap <= LAST_CAPABILITY; cap++) {
        if (plan->ambient >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
            return fail(err, errno, "capabilities", "raise ambient capability %d", cap);
    }
    return 0;
}

static int load_filter(const struct plan *plan, struct error *err) {
    struct sock_fprog program = {.len = (unsigned short)(plan->seccomp_length / 8), .filter = (void *)(uintptr_t)plan->seccomp};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
        return fail(err, errno, "seccomp", "load the system call filter");
    return 0;
}

static int become_user(const struct user *user, struct error *err) {
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return fail(err, errno, "user", "keep capabilities");
    if (setgroups(user->group_count, user->groups) < 0)
        return fail(err, errno, "user", "set the supplementary groups");
    if (setresgid(user->gid, user->gid, user->gid) < 0 || setresuid(user->uid, user->uid, user->uid) < 0)
        return fail(err, errno, "user", "become %u:%u", user->uid, user->gid);
    prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    return 0;
}

/* Docker makes a working directory that the image has not. */
static int enter_directory(const char *path, bool create, struct error *err) {
    if (chdir(path) == 0)
        return 0;
    if (errno != ENOENT || !create)
        return fail(err, errno, "cwd", "chdir to cwd (\"%s\")", path);
    char prefix[4096];
    if ((size_t)snprintf(prefix, sizeof prefix, "%s", path) >= sizeof prefix)
        return fail(err, ENAMETOOLONG, "cwd", "working directory");
    for (char *at = prefix + 1;; at++) {
        if (*at != '/' && *at != 0)
            continue;
        char saved = *at;
        *at = 0;
        if (mkdir(prefix, 0755) < 0 && errno != EEXIST)
            return fail(err, errno, "cwd", "make working directory %s", path);
        *at = saved;
        if (saved == 0)
            break;
    }
    return chdir(path) == 0 ? 0 : fail(err, errno, "cwd", "chdir to cwd (\"%s\")", path);
}

/* CVE-2024-21626: a working directory outside the root would be an open door to the host. */
static int check_directory(struct error *err) {
    char path[4096];
    long length = syscall(SYS_getcwd, path, sizeof path);
    if (length < 0 && errno == ENOENT)
        return 0; /* removed meanwhile: harmless */
    return length > 0 && path[0] == '/' ? 0 : fail(err, EPERM, "cwd", "working directory is outside the container");
}

static const char *environment(const struct plan *plan, const char *name) {
    size_t length = strlen(name);
    for (uint32_t i = 0; i < plan->env.count; i++) {
        if (strncmp(plan->env.items[i], name, length) == 0 && plan->env.items[i][length] == '=')
            return plan->env.items[i] + length + 1;
    }
    return NULL;
}

static int execute(const struct plan *plan, char **env, struct error *err) {
    char *const *args = (char *const *)plan->args.items;
    const char *name = args[0];
    if (strchr(name, '/') != NULL) {
        execve(name, args, env);
        return fail(err, errno, "exec", "exec: \"%s\"", name);
    }
    const char *search = environment(plan, "PATH");
    int worst = ENOENT;
    for (const char *at = search ? search : DEFAULT_PATH; at != NULL;) {
        const char *end = strchrnul(at, ':');
        char candidate[4096];
        int length = snprintf(candidate, sizeof candidate, "%.*s/%s", (int)(end - at), at, name);
        struct stat status;
        if (end > at && (size_t)length < sizeof candidate && stat(candidate, &status) == 0 && !S_ISDIR(status.st_mode)) {
            execve(candidate, args, env);
            if (errno != ENOENT)
                worst = errno;
            if (errno != EACCES && errno != ENOENT)
                break;
        }
        at = *end ? end + 1 : NULL;
    }
    return worst == ENOENT ? fail(err, 0, "path", "exec: \"%s\": executable file not found in $PATH", name)
                           : fail(err, worst, "exec", "exec: \"%s\"", name);
}

/* The plan's environment, with HOME where it has none. */
static char **complete_environment(const struct plan *plan, const struct user *user) {
    char **env = calloc(plan->env.count + 2u, sizeof *env);
    if (env == NULL)
        return NULL;
    memcpy(env, plan->env.items, plan->env.count * sizeof *env);
    if (environment(plan, "HOME") == NULL && asprintf(&env[plan->env.count], "HOME=%s", user->home) < 0)
        return NULL;
    return env;
}

int process_become(const struct plan *plan, struct stdio *stdio, int control, bool is_exec, struct error *err) {
    struct user user;
    if (setsid() < 0)
        return fail(err, errno, "start", "begin a session");
    if (plan->tty && open_terminal(plan, stdio, control, is_exec, err) < 0)
        return -1;
    if (place_stdio(stdio, err) < 0 || set_limits(plan, control, err) < 0)
        return -1;
    if (user_resolve(&user, plan->user, plan->groups, plan->group_count, err) < 0)
        return -1;
    char **env = complete_environment(plan, &user);
    if (env == NULL)
        return fail(err, ENOMEM, "exec", "allocate the environment");
    /* The terminal and the pipes belong to the process's user, so that /dev/stdout can be opened again. */
    for (int i = 0; i < 3; i++) {
        struct stat status;
        if (fstat(i, &status) == 0 && (S_ISFIFO(status.st_mode) || isatty(i)) && fchown(i, user.uid, (gid_t)-1) < 0 && errno != EPERM)
            return fail(err, errno, "stdio", "own stream %d", i);
    }
    bool entered = enter_directory(plan->cwd, !is_exec, err) == 0;
    if (plan->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail(err, errno, "seccomp", "no_new_privs");
    if (plan->has_capabilities && drop_bounding(plan, err) < 0)
        return -1;
    /* Without no_new_privs the filter takes CAP_SYS_ADMIN, so it is loaded before that is given up (seccomp(2)). */
    if (plan->seccomp != NULL && !plan->no_new_privileges && load_filter(plan, err) < 0)
        return -1;
    if (become_user(&user, err) < 0 || (plan->has_capabilities && set_capabilities(plan, err) < 0))
        return -1;
    /* A change of identity clears the parent-death signal (prctl(2)). */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    /* A directory that only its user may enter. */
    if (!entered && enter_directory(plan->cwd, false, err) < 0)
        return -1;
    if (check_directory(err) < 0)
        return -1;
    if (plan->seccomp != NULL && plan->no_new_privileges && load_filter(plan, err) < 0)
        return -1;
    return execute(plan, env, err);
}

static int join_namespaces(const struct plan *plan, struct error *err) {
    for (uint32_t i = 0; i < plan->namespace_count; i++) {
        const struct plan_namespace *ns = &plan->namespaces[i];
        if (ns->mode != NS_PATH)
            continue;
        AUTO_CLOSE int fd = open(ns->path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || setns(fd, (int)ns->kind) < 0)
            return fail(err, errno, "namespace", "join namespace %s", ns->path);
    }
    return 0;
}

/* A signal disposition survives execve where it is "ignore", and so does the mask: the container starts with neither. */
static void reset_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool is_new(const struct plan *plan, uint32_t kind) {
    for (uint32_t i = 0; i < plan->namespace_count; i++) {
        if (plan->namespaces[i].kind == kind)
            return plan->namespaces[i].mode == NS_NEW;
    }
    return false;
}

/* The first process of the container, between clone and execve. */
static _Noreturn void container_main(const struct plan *plan, struct stdio *stdio, int control) {
    struct error err;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* the container ends with its shim */
    reset_signals();
    if (set_oom_score(plan, control, &err) < 0)
        control_fail(control, &err);
    if (plan->cgroup_v2 == NULL && cgroup_enter(plan, &err) < 0)
        control_fail(control, &err);
    /* Unshared only now, so that the cgroups just entered are the root that the container sees. */
    if (is_new(plan, CLONE_NEWCGROUP) && unshare(CLONE_NEWCGROUP) < 0) {
        fail(&err, errno, "namespace", "new cgroup namespace");
        control_fail(control, &err);
    }
    if (join_namespaces(plan, &err) < 0)
        control_fail(control, &err);
    if (plan->hostname != NULL && sethostname(plan->hostname, strlen(plan->hostname)) < 0) {
        fail(&err, errno, "hostname", "set the host name to %s", plan->hostname);
        control_fail(control, &err);
    }
    if (plan->domainname != NULL && setdomainname(plan->domainname, strlen(plan->domainname)) < 0) {
        fail(&err, errno, "hostname", "set the domain name to %s", plan->domainname);
        control_fail(control, &err);
    }
    if (rootfs_enter(plan, &err) == 0)
        process_become(plan, stdio, control, false, &err);
    control_fail(control, &err);
}

static uint64_t start_ticks(pid_t pid) {
    char path[64], content[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, content, sizeof content - 1);
    if (length <= 0)
        return 0;
    content[length] = 0;
    char *at = strrchr(content, ')'); /* the name may hold spaces and parentheses: fields count from its end */
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

/* Takes over the parent's ends, once the child runs. */
static void adopt(struct process *process, struct stdio *stdio, bool tty) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    process->started_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    process->start_ticks = start_ticks(process->pid);
    if (tty) {
        fcntl(process->output, F_SETFL, O_RDWR | O_NONBLOCK);
        process->input = fcntl(process->output, F_DUPFD_CLOEXEC, 0);
        return;
    }
    process->input = stdio->parent[0];
    process->output = stdio->parent[1];
    process->error = stdio->parent[2];
    stdio->parent[0] = stdio->parent[1] = stdio->parent[2] = -1;
}

static uint64_t clone_flags(const struct plan *plan) {
    uint64_t flags = CLONE_PIDFD;
    for (uint32_t i = 0; i < plan->namespace_count; i++) {
        if (plan->namespaces[i].mode == NS_NEW && plan->namespaces[i].kind != CLONE_NEWCGROUP)
            flags |= plan->namespaces[i].kind;
    }
    return flags;
}

int process_start(struct process *process, const struct plan *plan, char *warning, size_t warning_size, struct error *err) {
    *process = (struct process){.pid = -1, .pidfd = -1, .input = -1, .output = -1, .error = -1};
    struct stdio stdio;
    if (stdio_open(&stdio, plan, err) < 0)
        return -1;
    int control[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
        return fail(err, errno, "start", "make the control socket");
    AUTO_CLOSE int cgroup = -1;
    struct clone_args args = {.flags = clone_flags(plan), .pidfd = (uintptr_t)&process->pidfd, .exit_signal = SIGCHLD};
    if (plan->cgroup_v2 != NULL) {
        cgroup = open(plan->cgroup_v2, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (cgroup < 0)
            return fail(err, errno, "cgroup", "open %s", plan->cgroup_v2);
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)cgroup;
    }
    process->pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (process->pid < 0)
        return fail(err, errno, "namespace", "make the namespaces");
    if (process->pid == 0) {
        close(control[0]);
        container_main(plan, &stdio, control[1]);
    }
    close(control[1]);
    stdio_close(stdio.child);
    int result = control_await(control[0], process, warning, warning_size, err);
    close(control[0]);
    if (result == 0)
        adopt(process, &stdio, plan->tty);
    stdio_close(stdio.parent);
    return result;
}

/* Enters the container from outside: cgroups first (their paths are the host's), then all namespaces at once. */
static int enter_container(const struct process *container, const struct plan *container_plan, struct error *err) {
    if (cgroup_enter(container_plan, err) < 0)
        return -1;
    int kinds = 0;
    for (uint32_t i = 0; i < container_plan->namespace_count; i++) {
        if (container_plan->namespaces[i].mode != NS_HOST)
            kinds |= (int)container_plan->namespaces[i].kind;
    }
    /* setns(2) on a pidfd joins them all or none, the mount namespace last. */
    if (setns(container->pidfd, kinds) < 0)
        return fail(err, errno, "namespace", "join the container's namespaces");
    return 0;
}

static _Noreturn void exec_main(const struct plan *plan, struct stdio *stdio, int control, const struct process *container,
                                const struct plan *container_plan) {
    struct error err;
    reset_signals();
    if (set_oom_score(container_plan, control, &err) < 0 || enter_container(container, container_plan, &err) < 0)
        control_fail(control, &err);
    /* The pid namespace holds for children only; CLONE_PARENT makes that child the shim's own. */
    struct clone_args args = {.flags = CLONE_PARENT};
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) {
        fail(&err, errno, "namespace", "start in the container's pid namespace");
        control_fail(control, &err);
    }
    if (pid > 0)
        _exit(control_send_pid(control, pid) == 0 ? 0 : 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    process_become(plan, stdio, control, true, &err);
    control_fail(control, &err);
}

int process_exec(struct process *process, const struct plan *plan, const struct process *container,
                 const struct plan *container_plan, char *warning, size_t warning_size, struct error *err) {
    *process = (struct process){.pid = -1, .pidfd = -1, .input = -1, .output = -1, .error = -1};
    struct stdio stdio;
    if (stdio_open(&stdio, plan, err) < 0)
        return -1;
    int control[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
        return fail(err, errno, "start", "make the control socket");
    pid_t intermediate = fork();
    if (intermediate < 0)
        return fail(err, errno, "start", "fork");
    if (intermediate == 0) {
        close(control[0]);
        exec_main(plan, &stdio, control[1], container, container_plan);
    }
    close(control[1]);
    stdio_close(stdio.child);
    int result = control_await(control[0], process, warning, warning_size, err);
    close(control[0]);
    if (result == 0 && process->pid <= 0)
        result = fail(err, ESRCH, "start", "the container has ended");
    if (result == 0)
        adopt(process, &stdio, plan->tty);
    else if (process->output >= 0)
        process_close(process);
    stdio_close(stdio.parent);
    return result;
}
