#ifndef GANTRY_BUFFER_H
#define GANTRY_BUFFER_H

#include <stddef.h>
#include <stdint.h>

/* Bytes on their way from here to there: appended at the end, taken from the front. Empty, it holds no memory. */
struct buffer {
    uint8_t *data;
    size_t start, used, capacity;
};

/* 0, or -1 where memory is short. */
int buffer_append(struct buffer *buffer, const void *bytes, size_t length);
uint8_t *buffer_front(struct buffer *buffer);
void buffer_take(struct buffer *buffer, size_t length);
void buffer_free(struct buffer *buffer);

#endif
