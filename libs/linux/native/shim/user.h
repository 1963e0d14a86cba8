#ifndef GANTRY_USER_H
#define GANTRY_USER_H

#include "../kernel/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define USER_GROUPS_MAX 256

struct user {
    uid_t uid;
    gid_t gid;
    gid_t groups[USER_GROUPS_MAX]; /* supplementary */
    uint32_t group_count;
    char home[1024]; /* "/" where the image names none */
};

/*
 * Finds who `spec` ("", "name", "uid", "name:group", "uid:gid") is, by the /etc/passwd and /etc/group of the current root. Call it
 * after pivot_root: links then cannot lead out. The errors are Docker's words.
 */
int user_resolve(struct user *user, const char *spec, const uint32_t *extra_groups, uint32_t extra_count, struct error *err);

#endif
