#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fail(struct error *err, int number, const char *step, const char *format, ...) {
    err->number = number;
    snprintf(err->step, sizeof err->step, "%s", step);
    va_list args;
    va_start(args, format);
    int length = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (number != 0 && length >= 0 && (size_t)length < sizeof err->text)
        snprintf(err->text + length, sizeof err->text - (size_t)length, ": %s", strerror(number));
    return -1;
}

void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
}

void free_pointer(void *pointer) {
    free(*(void **)pointer);
}
