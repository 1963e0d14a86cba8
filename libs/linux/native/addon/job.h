#ifndef GANTRY_JOB_H
#define GANTRY_JOB_H

#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * One asynchronous call: strings and bytes in, bytes out or an error with errno. `work` runs in libuv's pool and touches no
 * JavaScript. Everything it is given was copied.
 */
#define JOB_STRINGS 3

struct job {
    char *strings[JOB_STRINGS];
    uint8_t *input;
    size_t input_length;
    int64_t number;
    uint8_t *output;
    size_t output_length;
    int error; /* errno; 0: fine */
    char message[1024];
    void (*work)(struct job *job);
    napi_async_work handle;
    napi_deferred deferred;
};

int job_fail(struct job *job, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

void netlink_transact(struct job *job);
void netns_create(struct job *job);
void netns_delete(struct job *job);
void nftables_run(struct job *job);
void seccomp_compile(struct job *job);

#endif
