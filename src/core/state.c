/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state: the one walker of state tables.
 *
 * On the wire: version u32, number of fields u16, then each field as name length u8, name,
 * element size u8, element count u32, elements; all little-endian.
 */
#include "vmrun/state.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define MAX_FIELDS 64 /* bits in `seen` */

static uint64_t load_element(const void *at, unsigned size)
{
    switch (size) {
    case 1: return *(const uint8_t *)at;
    case 2: return *(const uint16_t *)at;
    case 4: return *(const uint32_t *)at;
    default: return *(const uint64_t *)at;
    }
}

static void store_element(void *at, unsigned size, uint64_t value)
{
    switch (size) {
    case 1: *(uint8_t *)at = (uint8_t)value; break;
    case 2: *(uint16_t *)at = (uint16_t)value; break;
    case 4: *(uint32_t *)at = (uint32_t)value; break;
    default: *(uint64_t *)at = value; break;
    }
}

/* Where element i of the field lies in obj. */
static void *element(const struct state_field *f, void *obj, uint32_t i)
{
    return (char *)obj + f->offset + (size_t)i * (f->stride ? f->stride : f->size);
}

int state_save(const struct state_desc *desc, void *obj, struct writer *w, struct error *err)
{
    if (desc->pre_save) {
        int r = desc->pre_save(obj, err);
        if (r < 0)
            return error_prefix(err, "%s", desc->name);
    }

    unsigned fields = 0;
    while (desc->fields[fields].name)
        fields++;
    assert(fields <= MAX_FIELDS);

    put_uint(w, desc->version, 4);
    put_uint(w, fields, 2);
    for (const struct state_field *f = desc->fields; f->name; f++) {
        put_uint(w, strlen(f->name), 1);
        put_bytes(w, f->name, strlen(f->name));
        put_uint(w, f->size, 1);
        put_uint(w, f->count, 4);
        for (uint32_t i = 0; i < f->count; i++)
            put_uint(w, load_element(element(f, obj, i), f->size), f->size);
    }

    if (w->failed)
        return error_set(err, ENOMEM, "%s: out of memory", desc->name);
    return 0;
}

static const struct state_field *find_field(const struct state_desc *desc, const char *name,
                                            size_t len)
{
    for (const struct state_field *f = desc->fields; f->name; f++)
        if (strlen(f->name) == len && memcmp(f->name, name, len) == 0)
            return f;
    return NULL;
}

/* A name that came in a stream, for a terminal: what does not print becomes '?'. */
static const char *printable(const char *name, size_t len, char buf[40])
{
    size_t i;

    for (i = 0; i < len && i < 39; i++)
        buf[i] = (char)(name[i] > ' ' && name[i] <= '~' ? name[i] : '?');
    buf[i] = '\0';
    return buf;
}

static int load_field(const struct state_field *f, void *obj, struct reader *r, struct error *err)
{
    uint64_t max = f->is_bool ? 1 : f->max;

    for (uint32_t i = 0; i < f->count; i++) {
        void *at = element(f, obj, i);
        uint64_t value = get_uint(r, f->size);

        if (r->failed)
            return error_set(err, EPROTO, "%s: stream ends early", f->name);
        if (max && value > max)
            return error_set(err, EPROTO, "%s: %llu is over %llu", f->name,
                             (unsigned long long)value, (unsigned long long)max);
        if (f->match && value != load_element(at, f->size))
            return error_set(err, EPROTO, "%s: source has %llu, target has %llu", f->name,
                             (unsigned long long)value,
                             (unsigned long long)load_element(at, f->size));
        store_element(at, f->size, value);
    }
    return 0;
}

int state_load(const struct state_desc *desc, void *obj, struct reader *r, struct error *err)
{
    uint64_t seen = 0; /* bit n: fields[n] was in the stream */
    uint32_t version = (uint32_t)get_uint(r, 4);
    unsigned fields = (unsigned)get_uint(r, 2);
    char shown[40];

    if (version > desc->version)
        return error_set(err, ENOTSUP, "%s: version %u is newer than %u", desc->name, version,
                         desc->version);

    for (unsigned i = 0; i < fields; i++) {
        size_t len = (size_t)get_uint(r, 1);
        const char *name = get_bytes(r, len);
        unsigned size = (unsigned)get_uint(r, 1);
        uint32_t count = (uint32_t)get_uint(r, 4);

        if (r->failed)
            return error_set(err, EPROTO, "%s: stream ends early", desc->name);

        const struct state_field *f = find_field(desc, name, len);
        if (!f)
            return error_set(err, EPROTO, "%s: unknown field '%s'", desc->name,
                             printable(name, len, shown));
        if (size != f->size || count != f->count)
            return error_set(err, EPROTO, "%s: %s has the wrong shape", desc->name, f->name);
        if (seen >> (f - desc->fields) & 1)
            return error_set(err, EPROTO, "%s: %s comes twice", desc->name, f->name);
        if (load_field(f, obj, r, err) < 0)
            return error_prefix(err, "%s", desc->name);
        seen |= UINT64_C(1) << (f - desc->fields);
    }

    if (r->failed)
        return error_set(err, EPROTO, "%s: stream ends early", desc->name);

    for (const struct state_field *f = desc->fields; f->name; f++)
        if (!(seen >> (f - desc->fields) & 1) && f->since <= version)
            return error_set(err, EPROTO, "%s: %s is missing", desc->name, f->name);

    if (desc->post_load && desc->post_load(obj, err) < 0)
        return error_prefix(err, "%s", desc->name);
    return 0;
}
