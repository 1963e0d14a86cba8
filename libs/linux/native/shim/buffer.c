#include "buffer.h"

#include <stdlib.h>
#include <string.h>

int buffer_append(struct buffer *buffer, const void *bytes, size_t length) {
    if (length == 0)
        return 0;
    if (buffer->start > 0 && buffer->start + buffer->used + length > buffer->capacity) {
        memmove(buffer->data, buffer->data + buffer->start, buffer->used);
        buffer->start = 0;
    }
    if (buffer->used + length > buffer->capacity) {
        size_t capacity = buffer->capacity ? buffer->capacity : 4096;
        while (capacity < buffer->used + length)
            capacity *= 2;
        uint8_t *data = realloc(buffer->data, capacity);
        if (data == NULL)
            return -1;
        buffer->data = data;
        buffer->capacity = capacity;
    }
    memcpy(buffer->data + buffer->start + buffer->used, bytes, length);
    buffer->used += length;
    return 0;
}

uint8_t *buffer_front(struct buffer *buffer) {
    return buffer->data + buffer->start;
}

void buffer_take(struct buffer *buffer, size_t length) {
    buffer->start += length;
    buffer->used -= length;
    if (buffer->used == 0)
        buffer_free(buffer);
}

void buffer_free(struct buffer *buffer) {
    free(buffer->data);
    *buffer = (struct buffer){0};
}
