#include "plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One operation's payload, read from front to back. Any overrun sets `bad`, and every later read gives nothing. */
struct reader {
    const uint8_t *at, *end;
    bool bad;
};

static uint64_t read_integer(struct reader *reader, size_t size) {
    if (reader->bad || (size_t)(reader->end - reader->at) < size) {
        reader->bad = true;
        return 0;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)reader->at[i] << (8 * i);
    reader->at += size;
    return value;
}

static uint32_t read_u32(struct reader *reader) {
    return (uint32_t)read_integer(reader, 4);
}

static uint64_t read_u64(struct reader *reader) {
    return read_integer(reader, 8);
}

/* A string inside the buffer; NUL-terminated there and without a NUL inside. */
static const char *read_string(struct reader *reader) {
    uint32_t length = read_u32(reader);
    if (reader->bad || (size_t)(reader->end - reader->at) < (size_t)length + 1 || reader->at[length] != 0 ||
        memchr(reader->at, 0, length) != NULL) {
        reader->bad = true;
        return "";
    }
    const char *text = (const char *)reader->at;
    reader->at += (size_t)length + 1;
    return text;
}

static uint16_t load_u16(const uint8_t *at) {
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t load_u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* First pass: how many of each operation, so that every array is allocated once and whole. */
static int count_operations(const uint8_t *at, const uint8_t *end, uint32_t counts[OP_MAX], struct error *err) {
    while (at < end) {
        if (end - at < 8)
            return fail(err, EINVAL, "plan", "operation header cut off");
        uint16_t op = load_u16(at);
        uint32_t length = load_u32(at + 4);
        if (op == 0 || op >= OP_MAX)
            return fail(err, EINVAL, "plan", "unknown operation %u", op);
        if ((size_t)(end - at - 8) < length)
            return fail(err, EINVAL, "plan", "operation %u cut off", op);
        counts[op]++;
        at += 8 + length;
    }
    return 0;
}

static void *array(uint32_t count, size_t size, bool *failed) {
    void *items = calloc((size_t)count + 1, size); /* one more: lists of strings end with NULL */
    if (items == NULL)
        *failed = true;
    return items;
}

static int allocate(struct plan *plan, const uint32_t counts[OP_MAX], struct error *err) {
    bool failed = false;
    plan->namespaces = array(counts[OP_NAMESPACE], sizeof *plan->namespaces, &failed);
    plan->cgroup_dirs.items = array(counts[OP_CGROUP_DIR], sizeof(char *), &failed);
    plan->cgroup_writes = array(counts[OP_CGROUP_WRITE], sizeof *plan->cgroup_writes, &failed);
    plan->lowerdirs.items = array(counts[OP_LOWER], sizeof(char *), &failed);
    plan->mounts = array(counts[OP_MOUNT], sizeof *plan->mounts, &failed);
    plan->devices = array(counts[OP_DEVICE], sizeof *plan->devices, &failed);
    plan->symlinks = array(counts[OP_SYMLINK], sizeof *plan->symlinks, &failed);
    plan->sysctls = array(counts[OP_SYSCTL], sizeof *plan->sysctls, &failed);
    plan->masked.items = array(counts[OP_MASK], sizeof(char *), &failed);
    plan->readonly.items = array(counts[OP_READONLY], sizeof(char *), &failed);
    plan->rlimits = array(counts[OP_RLIMIT], sizeof *plan->rlimits, &failed);
    plan->args.items = array(counts[OP_ARG], sizeof(char *), &failed);
    plan->env.items = array(counts[OP_ENV], sizeof(char *), &failed);
    plan->groups = array(counts[OP_GROUP], sizeof *plan->groups, &failed);
    return failed ? fail(err, ENOMEM, "plan", "cannot allocate the plan") : 0;
}

static void append(struct plan_strings *list, struct reader *reader) {
    list->items[list->count++] = read_string(reader);
}

static void decode_mount(struct plan *plan, uint16_t flags, struct reader *reader) {
    struct plan_mount *mount = &plan->mounts[plan->mount_count++];
    mount->flags = flags;
    mount->attributes = read_u64(reader);
    mount->propagation = read_u64(reader);
    mount->type = read_string(reader);
    mount->source = read_string(reader);
    mount->target = read_string(reader);
    mount->data = read_string(reader);
}

static void decode_device(struct plan *plan, struct reader *reader) {
    struct plan_device *device = &plan->devices[plan->device_count++];
    device->path = read_string(reader);
    device->mode = read_u32(reader);
    device->major = read_u32(reader);
    device->minor = read_u32(reader);
    device->uid = read_u32(reader);
    device->gid = read_u32(reader);
}

/* What the host's side of the container is made of. False: not one of these operations. */
static bool decode_host(struct plan *plan, uint16_t op, uint16_t flags, struct reader *reader) {
    switch (op) {
    case OP_ID:
        plan->id = read_string(reader);
        return true;
    case OP_RUN_DIR:
        plan->run_dir = read_string(reader);
        return true;
    case OP_NAMESPACE: {
        struct plan_namespace *ns = &plan->namespaces[plan->namespace_count++];
        ns->kind = read_u32(reader);
        ns->mode = read_u32(reader);
        ns->path = read_string(reader);
        reader->bad |= ns->mode > NS_PATH;
        return true;
    }
    case OP_CGROUP_DIR:
        append(&plan->cgroup_dirs, reader);
        return true;
    case OP_CGROUP_WRITE: {
        struct plan_write *write = &plan->cgroup_writes[plan->cgroup_write_count++];
        write->path = read_string(reader);
        write->value = read_string(reader);
        write->optional = flags & 1;
        return true;
    }
    case OP_CGROUP_V2:
        plan->cgroup_v2 = read_string(reader);
        return true;
    case OP_LOG:
        plan->log_path = read_string(reader);
        plan->log_max_size = read_u64(reader);
        plan->log_max_files = read_u32(reader);
        return true;
    default:
        return false;
    }
}

/* The root file system and what is mounted into it. */
static bool decode_root(struct plan *plan, uint16_t op, uint16_t flags, struct reader *reader) {
    switch (op) {
    case OP_ROOTFS:
        plan->has_rootfs = true;
        plan->readonly_rootfs = flags & 1;
        plan->upperdir = read_string(reader);
        plan->workdir = read_string(reader);
        return true;
    case OP_LOWER:
        append(&plan->lowerdirs, reader);
        return true;
    case OP_MOUNT:
        decode_mount(plan, flags, reader);
        return true;
    case OP_DEVICE:
        decode_device(plan, reader);
        return true;
    case OP_SYMLINK:
        plan->symlinks[plan->symlink_count].first = read_string(reader);
        plan->symlinks[plan->symlink_count++].second = read_string(reader);
        return true;
    case OP_MASK:
        append(&plan->masked, reader);
        return true;
    case OP_READONLY:
        append(&plan->readonly, reader);
        return true;
    case OP_SYSCTL:
        plan->sysctls[plan->sysctl_count].first = read_string(reader);
        plan->sysctls[plan->sysctl_count++].second = read_string(reader);
        return true;
    case OP_HOSTNAME:
        plan->hostname = read_string(reader);
        return true;
    case OP_DOMAINNAME:
        plan->domainname = read_string(reader);
        return true;
    default:
        return false;
    }
}

/* The process: its limits, rights, identity and streams. */
static bool decode_process(struct plan *plan, uint16_t op, uint16_t flags, struct reader *reader) {
    switch (op) {
    case OP_RLIMIT: {
        struct plan_rlimit *limit = &plan->rlimits[plan->rlimit_count++];
        limit->resource = read_u32(reader);
        limit->soft = read_u64(reader);
        limit->hard = read_u64(reader);
        return true;
    }
    case OP_CAPABILITIES:
        plan->has_capabilities = true;
        plan->bounding = read_u64(reader);
        plan->effective = read_u64(reader);
        plan->permitted = read_u64(reader);
        plan->inheritable = read_u64(reader);
        plan->ambient = read_u64(reader);
        return true;
    case OP_NO_NEW_PRIVILEGES:
        plan->no_new_privileges = true;
        return true;
    case OP_SECCOMP:
        plan->seccomp = reader->at;
        plan->seccomp_length = (uint32_t)(reader->end - reader->at);
        reader->bad |= plan->seccomp_length == 0 || plan->seccomp_length % 8 != 0 || plan->seccomp_length > 8 * 65535;
        reader->at = reader->end;
        return true;
    case OP_OOM_SCORE:
        plan->has_oom_score = true;
        plan->oom_score = (int32_t)read_u32(reader);
        return true;
    case OP_ARG:
        append(&plan->args, reader);
        return true;
    case OP_ENV:
        append(&plan->env, reader);
        return true;
    case OP_CWD:
        plan->cwd = read_string(reader);
        return true;
    case OP_USER:
        plan->user = read_string(reader);
        return true;
    case OP_GROUP:
        plan->groups[plan->group_count++] = read_u32(reader);
        return true;
    case OP_TTY:
        plan->tty = true;
        plan->rows = (uint16_t)read_u32(reader);
        plan->columns = (uint16_t)read_u32(reader);
        return true;
    case OP_HOLD:
        plan->hold = true;
        return true;
    case OP_STDIN:
        plan->open_stdin = true;
        plan->stdin_once = flags & 1;
        return true;
    default:
        return false;
    }
}

static int check_whole(const struct plan *plan, bool is_exec, struct error *err) {
    if (plan->args.count == 0 || plan->args.items[0][0] == 0)
        return fail(err, EINVAL, "plan", "no command");
    if (plan->id == NULL || plan->user == NULL || plan->cwd == NULL || plan->cwd[0] != '/')
        return fail(err, EINVAL, "plan", "id, user or absolute working directory missing");
    if (is_exec)
        return 0;
    if (plan->run_dir == NULL || plan->run_dir[0] != '/')
        return fail(err, EINVAL, "plan", "no run directory");
    if (!plan->has_rootfs || plan->lowerdirs.count == 0)
        return fail(err, EINVAL, "plan", "no root file system");
    return 0;
}

int plan_decode(struct plan *plan, const uint8_t *buffer, uint32_t length, bool is_exec, struct error *err) {
    memset(plan, 0, sizeof *plan);
    uint32_t counts[OP_MAX] = {0};
    const uint8_t *at = buffer, *end = buffer + length;
    if (count_operations(at, end, counts, err) < 0 || allocate(plan, counts, err) < 0)
        return -1;
    while (at < end) {
        uint16_t op = load_u16(at), flags = load_u16(at + 2);
        uint32_t size = load_u32(at + 4);
        struct reader reader = {.at = at + 8, .end = at + 8 + size};
        if (!decode_host(plan, op, flags, &reader) && !decode_root(plan, op, flags, &reader))
            decode_process(plan, op, flags, &reader);
        if (reader.bad || reader.at != reader.end)
            return fail(err, EINVAL, "plan", "operation %u malformed", op);
        at += 8 + size;
    }
    return check_whole(plan, is_exec, err);
}

void plan_free(struct plan *plan) {
    void *arrays[] = {plan->namespaces,       plan->cgroup_dirs.items, plan->cgroup_writes, plan->lowerdirs.items,
                      plan->mounts,           plan->devices,           plan->symlinks,      plan->sysctls,
                      plan->masked.items,     plan->readonly.items,    plan->rlimits,       plan->args.items,
                      plan->env.items,        plan->groups};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        free(arrays[i]);
    memset(plan, 0, sizeof *plan);
}
