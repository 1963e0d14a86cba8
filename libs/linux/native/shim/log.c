#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define OUT_SIZE (128 * 1024)

int log_open(struct log *log, const char *path, uint64_t max_size, uint32_t max_files, struct error *err) {
    memset(log, 0, sizeof *log);
    log->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (log->fd < 0)
        return fail(err, errno, "log", "open %s", path);
    struct stat status;
    if (fstat(log->fd, &status) < 0)
        return fail(err, errno, "log", "stat %s", path);
    log->path = path;
    log->size = (uint64_t)status.st_size;
    log->max_size = max_size;
    log->max_files = max_files ? max_files : 1;
    log->out = malloc(OUT_SIZE);
    log->streams[0].carry = malloc(LOG_LINE_MAX);
    log->streams[1].carry = malloc(LOG_LINE_MAX);
    if (!log->out || !log->streams[0].carry || !log->streams[1].carry)
        return fail(err, ENOMEM, "log", "allocate the log's buffers");
    return 0;
}

/* path → path.1 → path.2 …: by rename, so that a reader with an open file goes on to its end. */
static void rotate(struct log *log) {
    char from[4096], to[4096];
    for (uint32_t n = log->max_files - 1; n > 0; n--) {
        snprintf(to, sizeof to, "%s.%u", log->path, n);
        if (n == 1)
            snprintf(from, sizeof from, "%s", log->path);
        else
            snprintf(from, sizeof from, "%s.%u", log->path, n - 1);
        rename(from, to);
    }
    if (log->max_files == 1)
        unlink(log->path);
    int fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (fd < 0) {
        log->failed = log->failed ? log->failed : errno;
        return;
    }
    close(log->fd);
    log->fd = fd;
    log->size = 0;
}

static void flush(struct log *log) {
    if (log->max_size && log->size && log->size + log->out_used > log->max_size)
        rotate(log);
    for (uint32_t written = 0; written < log->out_used;) {
        ssize_t count = write(log->fd, log->out + written, log->out_used - written);
        if (count < 0) {
            if (errno == EINTR)
                continue;
            log->failed = log->failed ? log->failed : errno;
            break;
        }
        written += (uint32_t)count;
        log->size += (uint64_t)count;
    }
    log->out_used = 0;
}

static void put_integer(uint8_t *at, uint64_t value, int size) {
    for (int i = 0; i < size; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

/* One record, from what was carried over and what is new. */
static void emit(struct log *log, int stream, uint64_t now, const uint8_t *head, uint32_t head_length, const uint8_t *tail,
                 uint32_t tail_length, bool partial) {
    uint32_t length = head_length + tail_length, whole = LOG_HEADER + length + LOG_TRAILER;
    if (log->out_used + whole > OUT_SIZE)
        flush(log);
    uint8_t *at = log->out + log->out_used;
    put_integer(at, now, 8);
    at[8] = (uint8_t)stream;
    at[9] = partial ? LOG_PARTIAL : 0;
    at[10] = at[11] = 0;
    put_integer(at + 12, length, 4);
    memcpy(at + LOG_HEADER, head, head_length);
    if (tail_length > 0)
        memcpy(at + LOG_HEADER + head_length, tail, tail_length);
    put_integer(at + LOG_HEADER + length, whole, 4);
    log->out_used += whole;
}

static uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void log_append(struct log *log, int stream, const uint8_t *bytes, uint32_t length) {
    struct log_stream *state = &log->streams[stream - 1];
    uint64_t now = clock_ns();
    while (length > 0) {
        uint32_t room = LOG_LINE_MAX - state->used;
        uint32_t look = length < room ? length : room;
        const uint8_t *newline = memchr(bytes, '\n', look);
        if (newline == NULL && look < room) {
            memcpy(state->carry + state->used, bytes, look);
            state->used += look;
            break;
        }
        uint32_t take = newline ? (uint32_t)(newline - bytes) + 1 : look;
        emit(log, stream, now, state->carry, state->used, bytes, take, newline == NULL);
        state->used = 0;
        bytes += take;
        length -= take;
    }
    flush(log);
}

void log_finish(struct log *log, int stream) {
    struct log_stream *state = &log->streams[stream - 1];
    if (state->used > 0)
        emit(log, stream, clock_ns(), state->carry, state->used, NULL, 0, true);
    state->used = 0;
    flush(log);
}

void log_close(struct log *log) {
    if (log->fd >= 0)
        close(log->fd);
    free(log->out);
    free(log->streams[0].carry);
    free(log->streams[1].carry);
    log->fd = -1;
}
