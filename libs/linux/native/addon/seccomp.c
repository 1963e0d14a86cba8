#include "job.h"

#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARGUMENTS_MAX 6

/* `ACTION NAME [INDEX OPERATOR VALUE MASKED]…`: one rule. A call this libseccomp does not know is no call that it could let through. */
static int add_rule(struct job *job, scmp_filter_ctx filter, char *line) {
    char *cursor = line, *action = strsep(&cursor, " "), *name = strsep(&cursor, " ");
    struct scmp_arg_cmp arguments[ARGUMENTS_MAX];
    unsigned count = 0;
    while (cursor != NULL && count < ARGUMENTS_MAX) {
        unsigned index, operator;
        unsigned long long value, masked;
        int used = 0;
        if (sscanf(cursor, "%u %u %llu %llu%n", &index, &operator, &value, &masked, &used) != 4)
            return job_fail(job, EINVAL, "seccomp rule %s", name ? name : "");
        arguments[count++] = (struct scmp_arg_cmp){.arg = index, .op = (enum scmp_compare)operator, .datum_a = value, .datum_b = masked};
        cursor += used;
        cursor = *cursor == ' ' ? cursor + 1 : NULL;
    }
    int number = name ? seccomp_syscall_resolve_name(name) : __NR_SCMP_ERROR;
    if (number == __NR_SCMP_ERROR)
        return 0;
    int result = seccomp_rule_add_array(filter, (uint32_t)strtoul(action, NULL, 10), number, count, arguments);
    /* A rule equal to the default action adds nothing; one that an architecture can't express is left out there. */
    if (result < 0 && result != -EACCES && result != -EEXIST && result != -EDOM && result != -EINVAL)
        return job_fail(job, -result, "seccomp rule %s", name);
    return 0;
}

static int add_architectures(struct job *job, scmp_filter_ctx filter, char *names) {
    for (char *name; (name = strsep(&names, " ")) != NULL;) {
        uint32_t token = seccomp_arch_resolve_name(name);
        int result = token ? seccomp_arch_add(filter, token) : -EINVAL;
        if (result < 0 && result != -EEXIST)
            return job_fail(job, -result, "seccomp architecture %s", name);
    }
    return 0;
}

static int export_filter(struct job *job, scmp_filter_ctx filter) {
    int fd = memfd_create("seccomp", MFD_CLOEXEC);
    if (fd < 0)
        return job_fail(job, errno, "seccomp");
    int result = seccomp_export_bpf(filter, fd);
    off_t length = result < 0 ? 0 : lseek(fd, 0, SEEK_END);
    job->output = malloc((size_t)length + 1);
    if (result < 0 || job->output == NULL || pread(fd, job->output, (size_t)length, 0) != length)
        job_fail(job, result < 0 ? -result : EIO, "export the seccomp filter");
    else
        job->output_length = (size_t)length;
    close(fd);
    return 0;
}

/* (architectures, rules; default action): a filter as struct sock_filter[]. */
void seccomp_compile(struct job *job) {
    scmp_filter_ctx filter = seccomp_init((uint32_t)job->number);
    if (filter == NULL) {
        job_fail(job, EINVAL, "seccomp default action");
        return;
    }
    /* Setting it is the launcher's business, as is no_new_privs. */
    seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);
    seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (add_architectures(job, filter, job->strings[0]) == 0) {
        char *cursor = job->strings[1];
        for (char *line; job->error == 0 && (line = strsep(&cursor, "\n")) != NULL;) {
            if (*line != 0)
                add_rule(job, filter, line);
        }
        if (job->error == 0)
            export_filter(job, filter);
    }
    seccomp_release(filter);
}
