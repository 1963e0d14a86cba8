#include "job.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int job_fail(struct job *job, int error, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int length = vsnprintf(job->message, sizeof job->message, format, args);
    va_end(args);
    job->error = error ? error : EIO;
    if (error && length >= 0 && (size_t)length < sizeof job->message)
        snprintf(job->message + length, sizeof job->message - (size_t)length, ": %s", strerror(error));
    return -1;
}

static void job_free(struct job *job) {
    for (int i = 0; i < JOB_STRINGS; i++)
        free(job->strings[i]);
    free(job->input);
    free(job->output);
    free(job);
}

static void execute(napi_env env, void *data) {
    (void)env;
    struct job *job = data;
    job->work(job);
}

static napi_value error_value(napi_env env, const struct job *job) {
    napi_value message, code, error;
    napi_create_string_utf8(env, job->message, NAPI_AUTO_LENGTH, &message);
    napi_create_string_utf8(env, strerrorname_np(job->error) ? strerrorname_np(job->error) : "EIO", NAPI_AUTO_LENGTH, &code);
    napi_create_error(env, code, message, &error);
    return error;
}

static void complete(napi_env env, napi_status status, void *data) {
    struct job *job = data;
    napi_value result;
    if (status == napi_cancelled)
        job_fail(job, ECANCELED, "call");
    if (job->error) {
        napi_reject_deferred(env, job->deferred, error_value(env, job));
    } else {
        napi_create_buffer_copy(env, job->output_length, job->output, NULL, &result);
        napi_resolve_deferred(env, job->deferred, result);
    }
    napi_delete_async_work(env, job->handle);
    job_free(job);
}

static char *copy_string(napi_env env, napi_value value) {
    size_t length = 0;
    napi_get_value_string_utf8(env, value, NULL, 0, &length);
    char *text = malloc(length + 1);
    if (text != NULL)
        napi_get_value_string_utf8(env, value, text, length + 1, &length);
    return text;
}

/* Arguments by their JavaScript type, in order: strings, one buffer, one number. */
static bool take_argument(napi_env env, napi_value value, struct job *job, int *strings) {
    napi_valuetype type;
    bool is_buffer = false;
    if (napi_typeof(env, value, &type) != napi_ok)
        return false;
    if (type == napi_string && *strings < JOB_STRINGS)
        return (job->strings[(*strings)++] = copy_string(env, value)) != NULL;
    if (type == napi_number)
        return napi_get_value_int64(env, value, &job->number) == napi_ok;
    if (napi_is_buffer(env, value, &is_buffer) == napi_ok && is_buffer && job->input == NULL) {
        void *bytes;
        napi_get_buffer_info(env, value, &bytes, &job->input_length);
        job->input = malloc(job->input_length + 1);
        if (job->input != NULL)
            memcpy(job->input, bytes, job->input_length);
        return job->input != NULL;
    }
    return false;
}

static napi_value start(napi_env env, napi_callback_info info) {
    size_t count = 5;
    napi_value arguments[5], promise, name;
    void *work;
    napi_get_cb_info(env, info, &count, arguments, NULL, &work);
    struct job *job = calloc(1, sizeof *job);
    int strings = 0;
    bool taken = job != NULL;
    for (size_t i = 0; taken && i < count; i++)
        taken = take_argument(env, arguments[i], job, &strings);
    if (!taken) {
        if (job != NULL)
            job_free(job);
        napi_throw_type_error(env, "EINVAL", "wrong arguments");
        return NULL;
    }
    job->work = (void (*)(struct job *))work;
    napi_create_promise(env, &job->deferred, &promise);
    napi_create_string_utf8(env, "gantry", NAPI_AUTO_LENGTH, &name);
    napi_create_async_work(env, NULL, name, execute, complete, job, &job->handle);
    napi_queue_async_work(env, job->handle);
    return promise;
}

NAPI_MODULE_INIT() {
    const struct {
        const char *name;
        void (*work)(struct job *job);
    } functions[] = {
        {"netlinkTransact", netlink_transact}, {"netnsCreate", netns_create},       {"netnsDelete", netns_delete},
        {"nftablesRun", nftables_run},         {"seccompCompile", seccomp_compile},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        napi_value function;
        napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, start, (void *)functions[i].work, &function);
        napi_set_named_property(env, exports, functions[i].name, function);
    }
    return exports;
}
