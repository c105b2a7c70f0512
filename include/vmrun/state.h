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

#include <pthread.h>
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

/*
 * A fixed-width integer or a bool; anything else does not compile. A signed one travels as its
 * unsigned bits, and so .max refuses all that is negative. (The kernel's __u64 is another type than
 * uint64_t.)
 */
#define STATE_SIZE(x) \
    _Generic((x), bool : 1, uint8_t : 1, uint16_t : 2, uint32_t : 4, uint64_t : 8, \
             unsigned long long : 8, int8_t : 1, int16_t : 2, int32_t : 4, int64_t : 8)
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

/*
 * All that one machine has of state: (id, table, object), in the order in which it is loaded.
 * Whoever owns a thing adds it when the thing is made; it must outlive the registry.
 */
struct state_registry;
int state_registry_create(struct state_registry **ret_registry, struct error *err);
void state_registry_destroy(struct state_registry *registry); /* NULL is fine */

/*
 * id: 1 to 47 printable bytes, unique: "serial0", "vcpu3.lapic"; it is copied. lock: held while obj
 * is saved and loaded, because others look at it; or NULL.
 * Errors: -EINVAL, no such id; -EEXIST, it is taken; -ENOMEM.
 */
int state_registry_add(struct state_registry *registry, const char *id,
                       const struct state_desc *desc, void *obj, pthread_mutex_t *lock,
                       struct error *err);

/* Each entry as: id length u8, id, bytes u32, what state_save() put. Errors carry the id. */
int state_registry_save(const struct state_registry *registry, struct writer *w, struct error *err);

/*
 * Entries may come in any order and are loaded in the registry's, once the whole stream is known to
 * have them all. All or -EPROTO: an id that is unknown, missing or there twice is named, and so is
 * a table that does not use all its bytes. The stream is all that r has left. Errors: -ENOMEM, and
 * those of state_load().
 */
int state_registry_load(const struct state_registry *registry, struct reader *r, struct error *err);

/*
 * What state_registry_save() wrote, told field by field without any table: for `vmrun snapshot
 * info` and diff. values: count elements of size bytes each, little-endian. Nothing is told of a
 * stream that is broken anywhere; an id or field that comes twice is told twice. Errors: -EPROTO.
 */
struct state_told {
    const char *id, *field; /* not terminated: lengths below; printable or refused */
    unsigned id_len, field_len;
    unsigned size;
    uint32_t count;
    const uint8_t *values;
};
typedef void state_told_fn(void *opaque, const struct state_told *told);
int state_registry_tell(struct reader *r, state_told_fn *fn, void *opaque, struct error *err);

#endif
