/* Decodes one valid plan, then every truncation of it and many mutations: the decoder may refuse, never overrun. */
#include "plan.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t buffer[65536];
static uint32_t used;

static void put(const void *bytes, size_t length) {
    memcpy(buffer + used, bytes, length);
    used += (uint32_t)length;
}

static void put_u32(uint32_t value) {
    put(&value, 4);
}

static void put_operation(uint16_t op, uint16_t flags, uint32_t length) {
    put(&op, 2);
    put(&flags, 2);
    put_u32(length);
}

static void put_text(const char *text) {
    put_u32((uint32_t)strlen(text));
    put(text, strlen(text) + 1);
}

static void put_strings(uint16_t op, uint16_t flags, const char *first, const char *second) {
    uint32_t length = 5 + (uint32_t)strlen(first) + (second ? 5 + (uint32_t)strlen(second) : 0);
    put_operation(op, flags, length);
    put_text(first);
    if (second)
        put_text(second);
}

static void build_valid_plan(void) {
    used = 0;
    put_strings(OP_ID, 0, "c1", NULL);
    put_strings(OP_RUN_DIR, 0, "/run/c1", NULL);
    put_strings(OP_ROOTFS, 1, "/u", "/w");
    put_strings(OP_LOWER, 0, "/l1", NULL);
    put_strings(OP_LOWER, 0, "/l2", NULL);
    put_strings(OP_CGROUP_WRITE, 1, "/sys/fs/cgroup/x", "1");
    put_strings(OP_ARG, 0, "/bin/true", NULL);
    put_strings(OP_ENV, 0, "A=b", NULL);
    put_strings(OP_CWD, 0, "/", NULL);
    put_strings(OP_USER, 0, "", NULL);
    put_operation(OP_TTY, 0, 8);
    put_u32(24);
    put_u32(80);
}

int main(void) {
    struct plan plan;
    struct error err;
    build_valid_plan();
    assert(plan_decode(&plan, buffer, used, false, &err) == 0);
    assert(plan.lowerdirs.count == 2 && strcmp(plan.lowerdirs.items[1], "/l2") == 0);
    assert(plan.readonly_rootfs && plan.tty && plan.rows == 24 && plan.cgroup_writes[0].optional);
    assert(plan.args.items[1] == NULL && plan.env.items[1] == NULL);
    plan_free(&plan);

    unsigned refused = 0;
    for (uint32_t length = 0; length < used; length++) {
        uint8_t *copy = malloc(length + 1); /* exact size, so that the sanitizer sees any overrun */
        memcpy(copy, buffer, length);
        if (plan_decode(&plan, copy, length, false, &err) < 0)
            refused++;
        plan_free(&plan);
        free(copy);
    }
    assert(refused > used - 10);

    srand(1);
    for (int round = 0; round < 200000; round++) {
        uint8_t *copy = malloc(used);
        memcpy(copy, buffer, used);
        for (int flips = 1 + rand() % 4; flips > 0; flips--)
            copy[rand() % (int)used] = (uint8_t)rand();
        plan_decode(&plan, copy, used, round % 2, &err);
        plan_free(&plan);
        free(copy);
    }
    printf("plan decoder: valid plan decoded, %u truncations refused, 200000 mutations survived\n", refused);
    return 0;
}
