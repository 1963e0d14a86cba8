#include "job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OUT_SIZE (256 * 1024)
#define FRAME_HEADER 8

int job_operands(const struct job *job) {
    for (int i = 1; i < job->argument_count; i++) {
        if (strcmp(job->arguments[i], "--") == 0)
            return i + 1;
    }
    return job->argument_count;
}

const char *job_option(const struct job *job, const char *name) {
    int end = job_operands(job);
    for (int i = 1; i + 1 < end; i++) {
        if (strcmp(job->arguments[i], name) == 0)
            return job->arguments[i + 1];
    }
    return NULL;
}

const char **job_options(const struct job *job, const char *name, uint32_t *count) {
    const char **values = calloc((size_t)job->argument_count + 1, sizeof *values);
    *count = 0;
    int end = job_operands(job);
    for (int i = 1; values != NULL && i + 1 < end; i++) {
        if (strcmp(job->arguments[i], name) == 0)
            values[(*count)++] = job->arguments[++i];
    }
    return values;
}

bool job_flag(const struct job *job, const char *name) {
    int end = job_operands(job);
    for (int i = 1; i < end; i++) {
        if (strcmp(job->arguments[i], name) == 0)
            return true;
    }
    return false;
}

long job_read_some(struct job *job, void *to, size_t length) {
    for (;;) {
        ssize_t count = read(job->connection, to, length);
        if (count >= 0 || errno != EINTR)
            return count;
    }
}

int job_read(struct job *job, void *to, size_t length, struct error *err) {
    for (size_t used = 0; used < length;) {
        long count = job_read_some(job, (uint8_t *)to + used, length - used);
        if (count < 0)
            return fail(err, errno, "read", "read the archive");
        if (count == 0)
            return fail(err, 0, "archive", "the archive is cut off: unexpected end of file");
        used += (size_t)count;
    }
    return 0;
}

static int send_all(int fd, const void *bytes, size_t length) {
    for (size_t used = 0; used < length;) {
        ssize_t count = send(fd, (const uint8_t *)bytes + used, length - used, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return -1;
        used += (size_t)count;
    }
    return 0;
}

int job_send(struct job *job, uint8_t type, const void *payload, size_t length) {
    uint8_t header[FRAME_HEADER] = {type, 0, 0, 0, (uint8_t)(length >> 24), (uint8_t)(length >> 16), (uint8_t)(length >> 8), (uint8_t)length};
    return send_all(job->connection, header, sizeof header) < 0 ? -1 : send_all(job->connection, payload, length);
}

int job_flush(struct job *job, struct error *err) {
    if (job->out_used > 0 && job_send(job, FRAME_DATA, job->out, job->out_used) < 0)
        return fail(err, errno, "write", "nobody reads the result");
    job->out_used = 0;
    return 0;
}

int job_write(struct job *job, const void *bytes, size_t length, struct error *err) {
    if (job->out == NULL && (job->out = malloc(OUT_SIZE)) == NULL)
        return fail(err, ENOMEM, "write", "allocate");
    for (size_t used = 0; used < length;) {
        size_t room = OUT_SIZE - job->out_used, take = length - used < room ? length - used : room;
        memcpy(job->out + job->out_used, (const uint8_t *)bytes + used, take);
        job->out_used += take;
        used += take;
        if (job->out_used == OUT_SIZE && job_flush(job, err) < 0)
            return -1;
    }
    return 0;
}
