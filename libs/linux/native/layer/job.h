#ifndef GANTRY_LAYER_JOB_H
#define GANTRY_LAYER_JOB_H

#include "../kernel/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

/*
 * One piece of work on a file tree, asked for over a connection: u32 length (little-endian) and NUL-terminated arguments come first,
 * then input, up to the caller's half-close. What comes back are frames as the shim's: u8 type | 3 zero | u32 length big-endian.
 */
enum { FRAME_DATA = 1, FRAME_RESULT = 2, FRAME_FAILED = 3 };

#define JOB_ARGUMENTS_MAX (64u << 20) /* a copy names every file */

struct job {
    int connection;
    int argument_count;
    char **arguments;
    char *argument_bytes;
    uint8_t *out; /* data on its way */
    size_t out_used;
};

/* The value after `--name`, from `*index` on; NULL where there is none. */
const char *job_option(const struct job *job, const char *name);
/* All values of a repeated option; the array is NULL-terminated. */
const char **job_options(const struct job *job, const char *name, uint32_t *count);
bool job_flag(const struct job *job, const char *name);
/* Index of the first argument after `--`. */
int job_operands(const struct job *job);

/* Reads exactly `length` bytes of input; fewer is an error that says the archive is cut off. */
int job_read(struct job *job, void *to, size_t length, struct error *err);
/* Reads up to `length`; 0 at the end. */
long job_read_some(struct job *job, void *to, size_t length);
int job_write(struct job *job, const void *bytes, size_t length, struct error *err);
int job_flush(struct job *job, struct error *err);
int job_send(struct job *job, uint8_t type, const void *payload, size_t length);

int job_apply(struct job *job, char *result, size_t size, struct error *err);
int job_diff(struct job *job, char *result, size_t size, struct error *err);
int job_list(struct job *job, char *result, size_t size, struct error *err);
int job_copy(struct job *job, char *result, size_t size, struct error *err);
int job_mkdir(struct job *job, char *result, size_t size, struct error *err);

/* root.c: the tree a job works on: `--dir DIR`, or an overlay of `--lower`… (and `--upper`, `--work`), seen by this process alone. */
int root_open(struct job *job, bool writable, struct error *err);

#endif
