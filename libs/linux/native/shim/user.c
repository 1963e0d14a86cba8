#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (1u << 20) /* larger account files are an attack */
#define FIELDS_MAX 7

/* Reads a whole account file of the image; an absent one, or one that is no regular file (a FIFO would hang us), is empty. */
static char *read_accounts(const char *path) {
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat status;
    size_t used = 0;
    char *content = malloc(FILE_MAX + 1);
    if (content == NULL)
        return NULL;
    if (fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        ssize_t count;
        while (used < FILE_MAX && (count = read(fd, content + used, FILE_MAX - used)) > 0)
            used += (size_t)count;
    }
    content[used] = 0;
    return content;
}

/* Cuts the line at `*cursor` into fields and moves on. False at the end. */
static bool next_entry(char **cursor, char *fields[FIELDS_MAX], int *count) {
    char *line = strsep(cursor, "\n");
    if (line == NULL)
        return false;
    *count = 0;
    while (line != NULL && *count < FIELDS_MAX)
        fields[(*count)++] = strsep(&line, ":");
    return true;
}

static bool parse_id(const char *text, uint32_t *id) {
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || *end != 0 || value > 0x7fffffff)
        return false;
    *id = (uint32_t)value;
    return true;
}

/* Looks the user up by name or, for a number, by id. A number that no entry has is a user all the same. */
static int find_user(struct user *user, const char *name, char *login, size_t login_size, struct error *err) {
    AUTO_FREE char *content = read_accounts("/etc/passwd");
    if (content == NULL)
        return fail(err, ENOMEM, "user", "cannot read /etc/passwd");
    uint32_t wanted = 0;
    bool is_number = parse_id(name, &wanted);
    char *cursor = content, *fields[FIELDS_MAX];
    int count;
    while (next_entry(&cursor, fields, &count)) {
        uint32_t uid, gid;
        if (count < 4 || !parse_id(fields[2], &uid) || !parse_id(fields[3], &gid))
            continue;
        if (strcmp(fields[0], name) != 0 && !(is_number && uid == wanted))
            continue;
        user->uid = uid;
        user->gid = gid;
        snprintf(login, login_size, "%s", fields[0]);
        if (count >= 6 && fields[5][0] != 0)
            snprintf(user->home, sizeof user->home, "%s", fields[5]);
        return 0;
    }
    if (!is_number)
        return fail(err, 0, "user", "unable to find user %s: no matching entries in passwd file", name);
    user->uid = wanted;
    user->gid = 0;
    return 0;
}

static void add_group(struct user *user, gid_t gid) {
    for (uint32_t i = 0; i < user->group_count; i++) {
        if (user->groups[i] == gid)
            return;
    }
    if (user->group_count < USER_GROUPS_MAX)
        user->groups[user->group_count++] = gid;
}

static bool is_member(char *members, const char *login) {
    for (char *member; (member = strsep(&members, ",")) != NULL;) {
        if (strcmp(member, login) == 0)
            return true;
    }
    return false;
}

/* Sets the group that was asked for, and collects those that list the user as a member. */
static int find_groups(struct user *user, const char *group, const char *login, struct error *err) {
    AUTO_FREE char *content = read_accounts("/etc/group");
    if (content == NULL)
        return fail(err, ENOMEM, "user", "cannot read /etc/group");
    uint32_t wanted = 0;
    bool is_number = group != NULL && parse_id(group, &wanted), found = group == NULL;
    if (is_number) {
        user->gid = wanted;
        found = true;
    }
    char *cursor = content, *fields[FIELDS_MAX];
    int count;
    while (next_entry(&cursor, fields, &count)) {
        uint32_t gid;
        if (count < 3 || !parse_id(fields[2], &gid))
            continue;
        if (group != NULL && !is_number && strcmp(fields[0], group) == 0) {
            user->gid = gid;
            found = true;
        }
        /* An explicit group stands alone, as Docker has it. */
        if (group == NULL && login[0] != 0 && count >= 4 && is_member(fields[3], login))
            add_group(user, gid);
    }
    if (!found)
        return fail(err, 0, "user", "unable to find group %s: no matching entries in group file", group);
    return 0;
}

int user_resolve(struct user *user, const char *spec, const uint32_t *extra_groups, uint32_t extra_count, struct error *err) {
    memset(user, 0, sizeof *user);
    snprintf(user->home, sizeof user->home, "/");
    char copy[512], login[256] = "";
    if ((size_t)snprintf(copy, sizeof copy, "%s", spec) >= sizeof copy)
        return fail(err, ENAMETOOLONG, "user", "user %.32s…", spec);
    char *group = strchr(copy, ':');
    if (group != NULL)
        *group++ = 0;
    if (group != NULL && group[0] == 0)
        group = NULL;
    if (find_user(user, copy[0] ? copy : "0", login, sizeof login, err) < 0 || find_groups(user, group, login, err) < 0)
        return -1;
    for (uint32_t i = 0; i < extra_count; i++)
        add_group(user, extra_groups[i]);
    return 0;
}
