#ifndef GANTRY_SHIM_H
#define GANTRY_SHIM_H

#include "buffer.h"
#include "log.h"
#include "plan.h"
#include "process.h"

/*
 * Frames, in both directions: u8 type | 3 zero bytes | u32 length, big-endian | payload. Types 0–2 are Docker's own multiplexed
 * streams, so that output goes from here to the client unread. docs/native.md has the table.
 */
enum frame_type {
    FRAME_STDIN = 0x00, /* an empty one is end of input */
    FRAME_STDOUT = 0x01,
    FRAME_STDERR = 0x02,
    FRAME_STARTED = 0x10,
    FRAME_FAILED = 0x11,
    FRAME_WARNING = 0x12,
    FRAME_STATE = 0x20,
    FRAME_SIGNAL = 0x21,
    FRAME_RESIZE = 0x22,
    FRAME_ATTACH = 0x23,
    FRAME_WAIT = 0x24,
    FRAME_EXEC = 0x25,
    FRAME_RELEASE = 0x26,
    FRAME_OK = 0x31,
    FRAME_REFUSED = 0x32,
    FRAME_EXIT = 0x40,
};
#define FRAME_HEADER 8

#define ATTACH_STDIN 1u
#define ATTACH_STDOUT 2u
#define ATTACH_STDERR 4u

/* Above this a session counts as slow: its task's output is not read until it has caught up, as Docker does. */
#define SESSION_HIGH_WATER (1024 * 1024)
#define INPUT_HIGH_WATER (256 * 1024)

enum source_kind { SOURCE_LISTENER, SOURCE_SIGNALS, SOURCE_SESSION, SOURCE_OUTPUT, SOURCE_ERROR, SOURCE_INPUT };

struct source {
    enum source_kind kind;
    void *owner;
    uint32_t interest; /* epoll events asked for now; 0: not registered */
};

/* A process with its streams: the container's own or an exec's. */
struct task {
    struct process process;
    struct plan plan;
    uint8_t *plan_buffer;
    struct log *log; /* NULL: output only goes to sessions */
    struct source output, error, input_source;
    struct buffer input;
    bool held; /* nobody reads its output yet */
    bool input_ended, output_ended, error_ended, exited, reported;
    int status; /* of waitpid */
    uint64_t exited_ns;
    bool oom_killed;
    struct task *next;
};

/* One connection of the agent. */
struct session {
    int fd;
    struct source source;
    struct buffer in, out;
    struct task *task; /* whom its frames concern */
    uint32_t attached; /* ATTACH_* */
    bool waits, closed;
    bool is_launcher; /* the connection that brought the plan: its end releases what is held */
    struct session *next;
};

struct shim {
    int epoll, listener, signals;
    struct source listener_source, signal_source;
    struct task *main, *tasks;
    struct session *sessions;
    struct log log;
    bool has_log, finished;
    uint64_t drain_until_ms, exit_until_ms;
};

_Noreturn void shim_main(int connection);

/* shim.c */
int watch(struct shim *shim, struct source *source, int fd, uint32_t interest);
uint64_t now_ms(void);

/* task.c */
struct task *task_add(struct shim *shim);
void task_read(struct shim *shim, struct task *task, int stream);
void task_drain(struct shim *shim, struct task *task);
void task_write(struct shim *shim, struct task *task);
void task_feed(struct shim *shim, struct task *task, const uint8_t *bytes, size_t length);
void task_end_input(struct shim *shim, struct task *task);
void task_update(struct shim *shim, struct task *task);
void task_report(struct shim *shim, struct task *task);
void task_release(struct shim *shim, struct task *task);

/* session.c */
struct session *session_add(struct shim *shim, int fd);
void session_read(struct shim *shim, struct session *session);
void session_flush(struct shim *shim, struct session *session);
void session_update(struct shim *shim, struct session *session);
void session_send(struct session *session, uint8_t type, const void *payload, size_t length);
void session_send_error(struct session *session, uint8_t type, const struct error *err);
void session_send_started(struct session *session, const struct process *process);
void sessions_sweep(struct shim *shim);

#endif
