#ifndef GANTRY_ERROR_H
#define GANTRY_ERROR_H

#include <stddef.h>

/* What failed, where and why. Filled once, where the fact is known; callers pass it on unchanged. */
struct error {
    int number;      /* errno */
    char step[24];   /* the part of the work that failed: "mount", "user", "exec" … TypeScript branches on it */
    char text[488];  /* a sentence for a person */
};

/* Fills `err` and returns -1, so that a failing function ends with `return fail(…)`. */
int fail(struct error *err, int number, const char *step, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Clean-up attributes: the variable's end of scope closes or frees it. */
void close_fd(int *fd);
void free_pointer(void *pointer);
#define AUTO_CLOSE __attribute__((cleanup(close_fd)))
#define AUTO_FREE __attribute__((cleanup(free_pointer)))

#endif
