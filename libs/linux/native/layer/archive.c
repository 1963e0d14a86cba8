#include "archive.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[6], version[2], uname[32],
        gname[32], major[8], minor[8], prefix[155], padding[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a tar header is one block");

/* Octal, or base 256 where the first bit is set (GNU, for what octal can't hold). */
static bool parse_number(const char *field, size_t size, int64_t *number) {
    const unsigned char *bytes = (const unsigned char *)field;
    if (bytes[0] & 0x80) {
        int64_t value = bytes[0] & 0x40 ? -1 : 0;
        value = (value << 6) | (bytes[0] & 0x3f);
        for (size_t i = 1; i < size; i++) {
            if (value > (INT64_MAX >> 8) || value < (INT64_MIN >> 8))
                return false;
            value = (int64_t)((uint64_t)value << 8 | bytes[i]);
        }
        *number = value;
        return true;
    }
    size_t i = 0;
    uint64_t value = 0;
    while (i < size && (bytes[i] == ' ' || bytes[i] == 0))
        i++;
    for (; i < size && bytes[i] >= '0' && bytes[i] <= '7'; i++)
        value = value << 3 | (uint64_t)(bytes[i] - '0');
    if (i < size && bytes[i] != ' ' && bytes[i] != 0)
        return false;
    *number = (int64_t)value;
    return true;
}

static bool is_zero(const void *block) {
    static const char zero[BLOCK];
    return memcmp(block, zero, BLOCK) == 0;
}

static bool checksum_fits(const struct header *header) {
    int64_t said;
    uint32_t sum = 8 * ' ';
    const unsigned char *bytes = (const unsigned char *)header;
    for (size_t i = 0; i < BLOCK; i++)
        sum += i >= 148 && i < 156 ? 0 : bytes[i];
    return parse_number(header->checksum, sizeof header->checksum, &said) && said == (int64_t)sum;
}

int archive_skip(struct job *job, uint64_t length, struct error *err) {
    static uint8_t waste[65536];
    while (length > 0) {
        size_t step = length < sizeof waste ? (size_t)length : sizeof waste;
        if (job_read(job, waste, step, err) < 0)
            return -1;
        length -= step;
    }
    return 0;
}

int archive_skip_padding(struct job *job, uint64_t size, struct error *err) {
    return archive_skip(job, (BLOCK - size % BLOCK) % BLOCK, err);
}

void archive_entry_free(struct archive_entry *entry) {
    free(entry->path);
    free(entry->link);
    for (uint32_t i = 0; i < entry->xattr_count; i++) {
        free(entry->xattrs[i].name);
        free(entry->xattrs[i].value);
    }
    memset(entry, 0, sizeof *entry);
}

/* What extended headers said of the entry that follows. */
struct extension {
    bool has_size, has_uid, has_gid, has_mtime;
    int64_t size, uid, gid;
    struct timespec mtime;
};

static bool parse_time(const char *text, struct timespec *time) {
    char *end;
    long long seconds = strtoll(text, &end, 10);
    long nanoseconds = 0;
    if (end == text)
        return false;
    if (*end == '.') {
        long unit = 100000000;
        for (end++; *end >= '0' && *end <= '9'; end++, unit /= 10)
            nanoseconds += (*end - '0') * unit;
    }
    if (text[0] == '-' && nanoseconds > 0) {
        seconds--;
        nanoseconds = 1000000000 - nanoseconds;
    }
    *time = (struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = nanoseconds};
    return *end == 0;
}

static int take_record(struct archive_entry *entry, struct extension *extension, const char *key, const char *value, size_t length,
                       struct error *err) {
    static const char XATTR[] = "SCHILY.xattr.";
    if (strcmp(key, "path") == 0 || strcmp(key, "linkpath") == 0) {
        char **slot = key[0] == 'p' ? &entry->path : &entry->link;
        if (strlen(value) != length)
            return fail(err, 0, "archive", "a name in the archive holds a NUL");
        free(*slot);
        *slot = strdup(value);
    } else if (strcmp(key, "size") == 0) {
        extension->has_size = true;
        extension->size = strtoll(value, NULL, 10);
    } else if (strcmp(key, "uid") == 0) {
        extension->has_uid = true;
        extension->uid = strtoll(value, NULL, 10);
    } else if (strcmp(key, "gid") == 0) {
        extension->has_gid = true;
        extension->gid = strtoll(value, NULL, 10);
    } else if (strcmp(key, "mtime") == 0) {
        extension->has_mtime = parse_time(value, &extension->mtime);
    } else if (strncmp(key, "GNU.sparse.", 11) == 0) {
        return fail(err, 0, "archive", "sparse entry %s: this kind of archive is not supported", entry->path ? entry->path : "");
    } else if (strncmp(key, XATTR, sizeof XATTR - 1) == 0 && entry->xattr_count < XATTRS_MAX) {
        struct archive_xattr *xattr = &entry->xattrs[entry->xattr_count++];
        xattr->name = strdup(key + sizeof XATTR - 1);
        xattr->value = malloc(length + 1);
        if (xattr->value != NULL)
            memcpy(xattr->value, value, length);
        xattr->length = length;
    }
    return 0;
}

/* Records `LENGTH KEY=VALUE\n`, LENGTH counting all of it (POSIX pax, "pax Extended Header"). */
static int parse_records(struct archive_entry *entry, struct extension *extension, char *bytes, size_t size, struct error *err) {
    for (size_t at = 0; at < size;) {
        char *end;
        unsigned long length = strtoul(bytes + at, &end, 10);
        char *equals = *end == ' ' ? memchr(end, '=', size - (size_t)(end - bytes)) : NULL;
        if (length < 5 || length > size - at || equals == NULL || equals >= bytes + at + length || bytes[at + length - 1] != '\n')
            return fail(err, 0, "archive", "malformed extended header in the archive");
        *equals = 0;
        bytes[at + length - 1] = 0;
        size_t value_length = (size_t)(bytes + at + length - 1 - (equals + 1));
        if (take_record(entry, extension, end + 1, equals + 1, value_length, err) < 0)
            return -1;
        at += length;
    }
    return 0;
}

static char *read_extended(struct job *job, int64_t size, struct error *err) {
    if (size < 0 || size > EXTENDED_MAX) {
        fail(err, 0, "archive", "an extended header of %lld bytes is too large", (long long)size);
        return NULL;
    }
    char *bytes = malloc((size_t)size + 1);
    if (bytes == NULL || job_read(job, bytes, (size_t)size, err) < 0 || archive_skip_padding(job, (uint64_t)size, err) < 0) {
        free(bytes);
        return NULL;
    }
    bytes[size] = 0;
    return bytes;
}

static int fill(struct archive_entry *entry, const struct header *header, const struct extension *extension, int64_t size, struct error *err) {
    int64_t mode, uid, gid, mtime, major = 0, minor = 0;
    char name[sizeof header->prefix + sizeof header->name + 2];
    bool is_ustar = memcmp(header->magic, "ustar", 5) == 0;
    if (is_ustar && header->magic[5] == 0 && header->prefix[0] != 0)
        snprintf(name, sizeof name, "%.155s/%.100s", header->prefix, header->name);
    else
        snprintf(name, sizeof name, "%.100s", header->name);
    if (entry->path == NULL)
        entry->path = strdup(name);
    if (entry->link == NULL)
        entry->link = strndup(header->link, sizeof header->link);
    if (!parse_number(header->mode, 8, &mode) || !parse_number(header->uid, 8, &uid) || !parse_number(header->gid, 8, &gid) ||
        !parse_number(header->mtime, 12, &mtime) || (is_ustar && (!parse_number(header->major, 8, &major) || !parse_number(header->minor, 8, &minor))))
        return fail(err, 0, "archive", "malformed header of %s in the archive", entry->path);
    entry->type = header->type == 0 || header->type == '7' ? '0' : header->type;
    /* Before POSIX a directory was a file whose name ends with a slash. */
    if (entry->type == '0' && entry->path[0] != 0 && entry->path[strlen(entry->path) - 1] == '/')
        entry->type = '5';
    entry->mode = (mode_t)(mode & 07777);
    entry->uid = (uid_t)(extension->has_uid ? extension->uid : uid);
    entry->gid = (gid_t)(extension->has_gid ? extension->gid : gid);
    entry->mtime = extension->has_mtime ? extension->mtime : (struct timespec){.tv_sec = (time_t)mtime};
    entry->major = (uint32_t)major;
    entry->minor = (uint32_t)minor;
    entry->size = entry->type == '0' ? (uint64_t)size : 0;
    return 0;
}

int archive_next(struct job *job, struct archive_entry *entry, struct error *err) {
    struct header header;
    struct extension extension = {0};
    for (;;) {
        int64_t size;
        if (job_read(job, &header, sizeof header, err) < 0)
            return -1;
        if (is_zero(&header))
            return 0;
        if (!checksum_fits(&header))
            return fail(err, 0, "archive", "invalid tar header");
        if (!parse_number(header.size, sizeof header.size, &size) || size < 0)
            return fail(err, 0, "archive", "invalid size in a tar header");
        char type = header.type;
        if (type != 'x' && type != 'g' && type != 'L' && type != 'K') {
            if (extension.has_size)
                size = extension.size;
            return size < 0 ? fail(err, 0, "archive", "invalid size in a tar header") : fill(entry, &header, &extension, size, err) < 0 ? -1 : 1;
        }
        char *bytes = read_extended(job, size, err);
        if (bytes == NULL)
            return -1;
        int result = 0;
        if (type == 'x') {
            result = parse_records(entry, &extension, bytes, (size_t)size, err);
        } else if (type != 'g') {
            char **slot = type == 'L' ? &entry->path : &entry->link;
            free(*slot);
            *slot = strdup(bytes);
        }
        free(bytes);
        if (result < 0)
            return -1;
    }
}

static void put_octal(char *field, size_t size, uint64_t value) {
    /* The caller has put what does not fit into an extended record. */
    for (size_t i = size - 1; i-- > 0; value >>= 3)
        field[i] = (char)('0' + (value & 7));
    field[size - 1] = 0;
}

static size_t put_record(char *to, size_t room, const char *key, const void *value, size_t length) {
    size_t body = strlen(key) + length + 3, whole = body + 1; /* blank, equals sign, newline; and at least one digit */
    for (size_t digits = 1;; digits++) {
        char text[24];
        whole = body + digits;
        if ((size_t)snprintf(text, sizeof text, "%zu", whole) == digits)
            break;
    }
    if (whole >= room)
        return 0;
    int used = sprintf(to, "%zu %s=", whole, key);
    memcpy(to + used, value, length);
    to[whole - 1] = '\n';
    return whole;
}

static int write_block(struct job *job, const struct archive_entry *entry, char type, const char *path, uint64_t size, struct error *err) {
    struct header header = {0};
    size_t path_length = strlen(path), link_length = entry->link ? strlen(entry->link) : 0;
    memcpy(header.name, path, path_length < sizeof header.name ? path_length : sizeof header.name);
    if (type != 'x' && link_length > 0)
        memcpy(header.link, entry->link, link_length < sizeof header.link ? link_length : sizeof header.link);
    put_octal(header.mode, sizeof header.mode, entry->mode & 07777);
    put_octal(header.uid, sizeof header.uid, entry->uid & 07777777);
    put_octal(header.gid, sizeof header.gid, entry->gid & 07777777);
    put_octal(header.size, sizeof header.size, size & 077777777777);
    put_octal(header.mtime, sizeof header.mtime, entry->mtime.tv_sec < 0 ? 0 : (uint64_t)entry->mtime.tv_sec & 077777777777);
    header.type = type;
    memcpy(header.magic, "ustar", 6);
    memcpy(header.version, "00", 2);
    put_octal(header.major, sizeof header.major, entry->major);
    put_octal(header.minor, sizeof header.minor, entry->minor);
    memset(header.checksum, ' ', sizeof header.checksum);
    uint32_t sum = 0;
    for (size_t i = 0; i < BLOCK; i++)
        sum += ((unsigned char *)&header)[i];
    snprintf(header.checksum, 7, "%06o", sum);
    header.checksum[7] = ' ';
    return job_write(job, &header, sizeof header, err);
}

int archive_write_header(struct job *job, const struct archive_entry *entry, struct error *err) {
    size_t room = EXTENDED_MAX, used = 0;
    AUTO_FREE char *records = malloc(room);
    char number[64];
    if (records == NULL)
        return fail(err, ENOMEM, "archive", "allocate");
    if (strlen(entry->path) > 100)
        used += put_record(records + used, room - used, "path", entry->path, strlen(entry->path));
    if (entry->link != NULL && strlen(entry->link) > 100)
        used += put_record(records + used, room - used, "linkpath", entry->link, strlen(entry->link));
    if (entry->size > 077777777777)
        used += put_record(records + used, room - used, "size", number, (size_t)sprintf(number, "%llu", (unsigned long long)entry->size));
    if (entry->uid > 07777777)
        used += put_record(records + used, room - used, "uid", number, (size_t)sprintf(number, "%u", entry->uid));
    if (entry->gid > 07777777)
        used += put_record(records + used, room - used, "gid", number, (size_t)sprintf(number, "%u", entry->gid));
    if (entry->mtime.tv_nsec != 0 || entry->mtime.tv_sec < 0)
        used += put_record(records + used, room - used, "mtime", number,
                           (size_t)sprintf(number, "%lld.%09ld", (long long)entry->mtime.tv_sec, entry->mtime.tv_nsec));
    for (uint32_t i = 0; i < entry->xattr_count; i++) {
        char key[300];
        snprintf(key, sizeof key, "SCHILY.xattr.%s", entry->xattrs[i].name);
        used += put_record(records + used, room - used, key, entry->xattrs[i].value, entry->xattrs[i].length);
    }
    if (used > 0 && (write_block(job, entry, 'x', "PaxHeaders/entry", used, err) < 0 || job_write(job, records, used, err) < 0 ||
                     archive_write_padding(job, used, err) < 0))
        return -1;
    return write_block(job, entry, entry->type, entry->path, entry->size, err);
}

int archive_write_padding(struct job *job, uint64_t size, struct error *err) {
    static const char zero[BLOCK];
    return job_write(job, zero, (BLOCK - size % BLOCK) % BLOCK, err);
}

int archive_write_end(struct job *job, struct error *err) {
    static const char zero[2 * BLOCK];
    return job_write(job, zero, sizeof zero, err) < 0 ? -1 : job_flush(job, err);
}
