#ifndef GANTRY_ARCHIVE_H
#define GANTRY_ARCHIVE_H

#include "job.h"

#include <sys/stat.h>
#include <time.h>

#define BLOCK 512
#define XATTRS_MAX 64
#define EXTENDED_MAX (1u << 20) /* one entry's extended header: beyond this it is an attack */

struct archive_xattr {
    char *name;
    uint8_t *value;
    size_t length;
};

/* One entry of a tar: ustar, pax (POSIX.1-2001) and GNU long names. */
struct archive_entry {
    char type; /* '0' file, '1' hard link, '2' symbolic link, '3' '4' device, '5' directory, '6' fifo */
    char *path, *link;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    uint64_t size;
    struct timespec mtime;
    uint32_t major, minor;
    struct archive_xattr xattrs[XATTRS_MAX];
    uint32_t xattr_count;
};

/* The next entry; 1, or 0 at the end, or -1. The caller reads `size` bytes of content and then calls archive_skip_padding. */
int archive_next(struct job *job, struct archive_entry *entry, struct error *err);
int archive_skip(struct job *job, uint64_t length, struct error *err);
int archive_skip_padding(struct job *job, uint64_t size, struct error *err);
void archive_entry_free(struct archive_entry *entry);

/* Writes one entry's headers. Same entry, same bytes: digests have to be stable. */
int archive_write_header(struct job *job, const struct archive_entry *entry, struct error *err);
int archive_write_padding(struct job *job, uint64_t size, struct error *err);
int archive_write_end(struct job *job, struct error *err);

#endif
