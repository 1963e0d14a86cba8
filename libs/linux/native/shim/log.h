#ifndef GANTRY_LOG_H
#define GANTRY_LOG_H

#include "../kernel/error.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The container's log: records of one line each, docs/container-log.md.
 *   u64 unix ns | u8 stream | u8 flags | u16 0 | u32 length | payload | u32 length of the whole record
 */
#define LOG_HEADER 16
#define LOG_TRAILER 4
#define LOG_PARTIAL 1u          /* the payload does not end with a newline */
#define LOG_LINE_MAX (16 * 1024) /* as Docker: longer lines are split */

struct log_stream {
    uint8_t *carry; /* the beginning of a line whose end has not come yet */
    uint32_t used;
};

struct log {
    int fd;
    const char *path;
    uint64_t size, max_size;
    uint32_t max_files;
    uint8_t *out;
    uint32_t out_used;
    struct log_stream streams[2];
    int failed; /* errno of the first failed write; the container is not stopped for it */
};

int log_open(struct log *log, const char *path, uint64_t max_size, uint32_t max_files, struct error *err);
/* Appends what came from stream 1 (stdout) or 2 (stderr). */
void log_append(struct log *log, int stream, const uint8_t *bytes, uint32_t length);
/* The stream has ended: what it left without a newline becomes a record. */
void log_finish(struct log *log, int stream);
void log_close(struct log *log);

#endif
