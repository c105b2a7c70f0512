/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_STATE_H
#define VMRUN_STATE_H

/*
 * What of a struct survives a snapshot or a migration, as a table.
 *
 * Save, load, print and compare all walk this table and nothing else, so a field
 * that is not listed does not travel. On the wire each field carries its own
 * name, width and count: a stream can be printed without the code that wrote
 * it, and fields may be reordered freely.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmrun/bytes.h"
#include "vmrun/error.h"

struct state_field {
    const char *name;
    uint32_t offset;
    uint32_t count;  /* elements: 1, or the length of the array */
    uint32_t stride; /* bytes from one element to the next; 0: they are adjacent */
    uint8_t size;    /* bytes per element: 1, 2, 4 or 8 */
    bool is_bool;    /* 0 or 1 only: another value in a C bool is undefined */
    bool match;      /* not restored: must equal what the target has */
    uint32_t since;  /* first version that carries it; 0 means always */
    uint64_t max;    /* a load refuses a larger value; 0 means any */
};

struct state_desc {
    const char *name;
    uint32_t version;                 /* of the newest field */
    const struct state_field *fields; /* at most 64, ends with STATE_END */

    /* Optional. Fetch what lives elsewhere (the kernel, a clock) into the struct. */
    int (*pre_save)(void *obj, struct error *err);
    /* Optional. Check relations between fields, rebuild what is derived. */
    int (*post_load)(void *obj, struct error *err);
};

/* A fixed-width unsigned lvalue or a bool; anything else does not compile. */
#define STATE_SIZE(x) _Generic((x), bool : 1, uint8_t : 1, uint16_t : 2, uint32_t : 4, uint64_t : 8)
#define STATE_SHAPE(x) .size = STATE_SIZE(x), .is_bool = _Generic((x), bool : true, default : false)

/* Use: STATE(struct rtc, index, .max = 127), STATE(struct rtc, century, .since = 2) */
#define STATE(T, member, ...) \
    { \
        .name = #member, .offset = offsetof(T, member), .count = 1, STATE_SHAPE(((T *)0)->member), \
        __VA_ARGS__ \
    }

#define STATE_ARRAY(T, member, ...) \
    { \
        .name = #member, .offset = offsetof(T, member), \
        .count = sizeof(((T *)0)->member) / sizeof(((T *)0)->member[0]), \
        STATE_SHAPE(((T *)0)->member[0]), __VA_ARGS__ \
    }

/* One member of every struct in an array: STATE_EACH(struct nic, rings, base) */
#define STATE_EACH(T, array, member, ...) \
    { \
        .name = #array "." #member, .offset = offsetof(T, array[0].member), \
        .count = sizeof(((T *)0)->array) / sizeof(((T *)0)->array[0]), \
        .stride = sizeof(((T *)0)->array[0]), STATE_SHAPE(((T *)0)->array[0].member), __VA_ARGS__ \
    }

#define STATE_END \
    { \
        .name = NULL \
    }

/* obj: the struct that the table's offsets count from. Errors: -ENOMEM, what pre_save says. */
int state_save(const struct state_desc *desc, void *obj, struct writer *w, struct error *err);

/*
 * The stream is hostile until proven otherwise. On failure obj is half loaded
 * and fit only to be reset or destroyed.
 *
 * Errors: -EPROTO  unknown, repeated or missing field, wrong shape, value out of range
 *         -ENOTSUP saved by a newer version
 */
int state_load(const struct state_desc *desc, void *obj, struct reader *r, struct error *err);

#endif
