#ifndef GANTRY_PLAN_H
#define GANTRY_PLAN_H

#include "../kernel/error.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * A plan: what to do, decided by TypeScript, as a flat list of operations. docs/native.md describes the wire form:
 *   u32 magic "GPL1" | u32 length of all that follows | { u16 op | u16 flags | u32 length | payload }*
 * Integers are little-endian; a string is u32 length, its bytes, one NUL. Strings in a decoded plan point into its buffer.
 */
#define PLAN_MAGIC 0x314c5047u /* "GPL1" */
#define PLAN_HEADER 8
#define PLAN_MAX (4u << 20)

enum plan_op {
    OP_ID = 1,
    OP_RUN_DIR,
    OP_NAMESPACE,
    OP_CGROUP_DIR,
    OP_CGROUP_WRITE,
    OP_CGROUP_V2,
    OP_ROOTFS,
    OP_LOWER,
    OP_MOUNT,
    OP_DEVICE,
    OP_SYMLINK,
    OP_MASK,
    OP_READONLY,
    OP_SYSCTL,
    OP_HOSTNAME,
    OP_DOMAINNAME,
    OP_RLIMIT,
    OP_CAPABILITIES,
    OP_NO_NEW_PRIVILEGES,
    OP_SECCOMP,
    OP_OOM_SCORE,
    OP_ARG,
    OP_ENV,
    OP_CWD,
    OP_USER,
    OP_GROUP,
    OP_TTY,
    OP_STDIN,
    OP_LOG,
    OP_HOLD,
    OP_MAX,
};

enum namespace_mode { NS_HOST = 0, NS_NEW = 1, NS_PATH = 2 };

struct plan_namespace {
    uint32_t kind; /* a CLONE_NEW* flag */
    uint32_t mode;
    const char *path;
};

struct plan_write {
    const char *path, *value;
    bool optional;
};

#define MOUNT_BIND 1u           /* a bind of `source`; else a new file system of type `type` */
#define MOUNT_RECURSIVE 2u      /* with what is mounted below the source */
#define MOUNT_RECURSIVE_ATTR 4u /* attributes hold for what is mounted below, too */
#define MOUNT_FILE 8u           /* a missing target is made as a file, not as a directory */
#define MOUNT_NO_SYMLINK 16u    /* the target's path may not lead over a symbolic link */
#define MOUNT_OPTIONAL 32u      /* skipped where the kernel lacks the file system */

struct plan_mount {
    uint16_t flags;
    uint64_t attributes;  /* MOUNT_ATTR_* */
    uint64_t propagation; /* MS_PRIVATE, MS_SLAVE, MS_SHARED or 0 */
    const char *type, *source, *target, *data;
};

struct plan_device {
    const char *path;
    uint32_t mode, major, minor, uid, gid;
};

struct plan_pair {
    const char *first, *second;
};

struct plan_rlimit {
    uint32_t resource;
    uint64_t soft, hard;
};

struct plan_strings {
    const char **items;
    uint32_t count;
};

struct plan {
    const char *id, *run_dir;
    struct plan_namespace *namespaces;
    uint32_t namespace_count;
    struct plan_strings cgroup_dirs;
    struct plan_write *cgroup_writes;
    uint32_t cgroup_write_count;
    const char *cgroup_v2;
    bool has_rootfs, readonly_rootfs;
    const char *upperdir, *workdir;
    struct plan_strings lowerdirs;
    struct plan_mount *mounts;
    uint32_t mount_count;
    struct plan_device *devices;
    uint32_t device_count;
    struct plan_pair *symlinks, *sysctls;
    uint32_t symlink_count, sysctl_count;
    struct plan_strings masked, readonly;
    const char *hostname, *domainname;
    struct plan_rlimit *rlimits;
    uint32_t rlimit_count;
    bool has_capabilities;
    uint64_t bounding, effective, permitted, inheritable, ambient;
    bool no_new_privileges;
    const void *seccomp;
    uint32_t seccomp_length;
    bool has_oom_score;
    int32_t oom_score;
    struct plan_strings args, env; /* NULL-terminated, for execve */
    const char *cwd, *user;
    uint32_t *groups;
    uint32_t group_count;
    bool tty;
    uint16_t rows, columns;
    bool open_stdin, stdin_once;
    bool hold; /* output is not read before FRAME_RELEASE: someone is about to attach */
    const char *log_path;
    uint64_t log_max_size;
    uint32_t log_max_files;
};

/* Decodes and validates the operations after the header. `buffer` must outlive the plan. Frees nothing on failure but is
 * safe to pass to plan_free(). `is_exec`: a plan for one more process in a running container, which needs no root. */
int plan_decode(struct plan *plan, const uint8_t *buffer, uint32_t length, bool is_exec, struct error *err);
void plan_free(struct plan *plan);

#endif
