/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aml: terms as bytes. The length of a body stands before it and is itself of
 * variable length: it is inserted when the body ends, from the inside out, so
 * what is still open never moves.
 */
#include "aml.h"

#include <assert.h>
#include <string.h>

enum {
    ZERO_OP = 0x00,
    ONE_OP = 0x01,
    NAME_OP = 0x08,
    BYTE_PREFIX = 0x0a,
    WORD_PREFIX = 0x0b,
    DWORD_PREFIX = 0x0c,
    STRING_PREFIX = 0x0d,
    QWORD_PREFIX = 0x0e,
    SCOPE_OP = 0x10,
    BUFFER_OP = 0x11,
    PACKAGE_OP = 0x12,
    METHOD_OP = 0x14,
    DUAL_NAME_PREFIX = 0x2e,
    EXT_PREFIX = 0x5b,
    ARG0_OP = 0x68,
    OR_OP = 0x7d,
    NOTIFY_OP = 0x86,
    CREATE_DWORD_FIELD_OP = 0x8a,
    LNOT_OP = 0x92,
    LEQUAL_OP = 0x93,
    IF_OP = 0xa0,
    RETURN_OP = 0xa4,
    DEVICE_OP = 0x82, /* after EXT_PREFIX */
};

/* Small resource items: type and length in one byte. */
enum { ITEM_IRQ = 0x22, ITEM_IO = 0x47, ITEM_END = 0x79 };
/* Large ones: type, and a length of two bytes follows. */
enum { ITEM_MEMORY32 = 0x86, ITEM_DWORD = 0x87, ITEM_WORD = 0x88, ITEM_QWORD = 0x8a };
/* Address space descriptors: type of resource, and what of it is fixed. */
enum { SPACE_MEMORY = 0, SPACE_IO = 1, SPACE_BUS = 2 };
enum { MIN_FIXED_MAX_FIXED = 0x0c, IO_ENTIRE_RANGE = 0x03, MEMORY_READ_WRITE = 0x01 };

static void put_segment(struct aml *a, const char *name, size_t len)
{
    assert(len <= 4);
    put_bytes(&a->w, name, len);
    put_bytes(&a->w, "____", 4 - len);
}

static void put_name(struct aml *a, const char *name)
{
    const char *dot;

    if (*name == '\\')
        put_uint(&a->w, (uint8_t)*name++, 1);
    dot = strchr(name, '.');
    if (dot) {
        put_uint(&a->w, DUAL_NAME_PREFIX, 1);
        put_segment(a, name, (size_t)(dot - name));
        name = dot + 1;
    }
    put_segment(a, name, strlen(name));
}

static void begin_body(struct aml *a, bool resources)
{
    assert(a->depth < AML_MAX_DEPTH);
    a->open[a->depth].at = a->w.len;
    a->open[a->depth++].resources = resources;
}

static void insert(struct writer *w, size_t at, const uint8_t *bytes, size_t len)
{
    put_bytes(w, bytes, len); /* makes the room */
    if (w->failed)
        return;
    memmove(w->data + at + len, w->data + at, w->len - len - at);
    memcpy(w->data + at, bytes, len);
}

/* "Package Length Encoding": it counts its own bytes too. */
static void insert_length(struct writer *w, size_t at)
{
    size_t len = w->len - at;
    uint8_t bytes[4];
    unsigned extra = len + 1 < 0x40 ? 0 : len + 2 < 0x1000 ? 1 : len + 3 < 0x100000 ? 2 : 3;

    len += 1 + extra;
    assert(len < UINT64_C(1) << 28);
    bytes[0] = (uint8_t)(extra ? extra << 6 | (len & 0xf) : len);
    for (unsigned i = 1; i <= extra; i++)
        bytes[i] = (uint8_t)(len >> (8 * i - 4));
    insert(w, at, bytes, 1 + extra);
}

void aml_end(struct aml *a)
{
    assert(a->depth > 0);
    size_t at = a->open[--a->depth].at;

    if (a->open[a->depth].resources) {
        put_uint(&a->w, ITEM_END, 1);
        put_uint(&a->w, 0, 1); /* a checksum of 0 counts as right */
        size_t len = a->w.len - at;
        const uint8_t size[] = {WORD_PREFIX, (uint8_t)len, (uint8_t)(len >> 8)};

        insert(&a->w, at, size, sizeof(size));
    }
    insert_length(&a->w, at);
}

void aml_begin_scope(struct aml *a, const char *name)
{
    put_uint(&a->w, SCOPE_OP, 1);
    begin_body(a, false);
    put_name(a, name);
}

void aml_begin_device(struct aml *a, const char *name)
{
    put_uint(&a->w, EXT_PREFIX, 1);
    put_uint(&a->w, DEVICE_OP, 1);
    begin_body(a, false);
    put_name(a, name);
}

void aml_begin_package(struct aml *a, uint8_t elements)
{
    put_uint(&a->w, PACKAGE_OP, 1);
    begin_body(a, false);
    put_uint(&a->w, elements, 1);
}

void aml_begin_resources(struct aml *a)
{
    put_uint(&a->w, BUFFER_OP, 1);
    begin_body(a, true);
}

void aml_begin_method(struct aml *a, const char *name, uint8_t arguments)
{
    const uint8_t serialized = 1 << 3;

    assert(arguments <= 7);
    put_uint(&a->w, METHOD_OP, 1);
    begin_body(a, false);
    put_name(a, name);
    put_uint(&a->w, arguments | serialized, 1);
}

void aml_begin_if_not_equal(struct aml *a)
{
    put_uint(&a->w, IF_OP, 1);
    begin_body(a, false);
    put_uint(&a->w, LNOT_OP, 1);
    put_uint(&a->w, LEQUAL_OP, 1);
}

void aml_name(struct aml *a, const char *name)
{
    put_uint(&a->w, NAME_OP, 1);
    put_name(a, name);
}

void aml_integer(struct aml *a, uint64_t value)
{
    static const uint8_t prefixes[] = {BYTE_PREFIX, WORD_PREFIX, DWORD_PREFIX, QWORD_PREFIX};
    unsigned log = value <= UINT8_MAX ? 0 : value <= UINT16_MAX ? 1 : value <= UINT32_MAX ? 2 : 3;

    if (value <= 1) {
        put_uint(&a->w, value ? ONE_OP : ZERO_OP, 1);
        return;
    }
    put_uint(&a->w, prefixes[log], 1);
    put_uint(&a->w, value, 1u << log);
}

void aml_string(struct aml *a, const char *text)
{
    put_uint(&a->w, STRING_PREFIX, 1);
    put_bytes(&a->w, text, strlen(text) + 1);
}

void aml_buffer(struct aml *a, const void *data, uint8_t len)
{
    put_uint(&a->w, BUFFER_OP, 1);
    begin_body(a, false);
    aml_integer(a, len);
    put_bytes(&a->w, data, len);
    aml_end(a);
}

void aml_argument(struct aml *a, uint8_t n)
{
    assert(n < 7);
    put_uint(&a->w, ARG0_OP + n, 1);
}

void aml_reference(struct aml *a, const char *name)
{
    put_name(a, name);
}

void aml_dword_field(struct aml *a, uint8_t argument, uint64_t offset, const char *name)
{
    put_uint(&a->w, CREATE_DWORD_FIELD_OP, 1);
    aml_argument(a, argument);
    aml_integer(a, offset);
    put_name(a, name);
}

void aml_or(struct aml *a, const char *target, uint64_t bits)
{
    put_uint(&a->w, OR_OP, 1);
    put_name(a, target);
    aml_integer(a, bits);
    put_name(a, target);
}

void aml_notify(struct aml *a, const char *device, uint8_t value)
{
    put_uint(&a->w, NOTIFY_OP, 1);
    put_name(a, device);
    aml_integer(a, value);
}

void aml_return_argument(struct aml *a, uint8_t n)
{
    put_uint(&a->w, RETURN_OP, 1);
    aml_argument(a, n);
}

static unsigned hex_digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10);
}

void aml_eisa_id(struct aml *a, const char *id)
{
    assert(strlen(id) == 7);
    /* Three letters of five bits and four digits, most significant first; stored big-endian. */
    unsigned letters =
        (unsigned)(id[0] - '@') << 10 | (unsigned)(id[1] - '@') << 5 | (unsigned)(id[2] - '@');
    const uint8_t bytes[] = {DWORD_PREFIX, (uint8_t)(letters >> 8), (uint8_t)letters,
                             (uint8_t)(hex_digit(id[3]) << 4 | hex_digit(id[4])),
                             (uint8_t)(hex_digit(id[5]) << 4 | hex_digit(id[6]))};

    put_bytes(&a->w, bytes, sizeof(bytes));
}

void aml_resource_io(struct aml *a, uint16_t first, uint8_t count)
{
    put_uint(&a->w, ITEM_IO, 1);
    put_uint(&a->w, 1, 1);     /* 16 lines decoded */
    put_uint(&a->w, first, 2); /* lowest and highest base */
    put_uint(&a->w, first, 2);
    put_uint(&a->w, 1, 1); /* alignment */
    put_uint(&a->w, count, 1);
}

void aml_resource_irq(struct aml *a, uint8_t irq)
{
    assert(irq < 16);
    put_uint(&a->w, ITEM_IRQ, 1);
    put_uint(&a->w, UINT64_C(1) << irq, 2);
}

void aml_resource_memory32(struct aml *a, uint32_t base, uint32_t size)
{
    put_uint(&a->w, ITEM_MEMORY32, 1);
    put_uint(&a->w, 9, 2);
    put_uint(&a->w, MEMORY_READ_WRITE, 1);
    put_uint(&a->w, base, 4);
    put_uint(&a->w, size, 4);
}

/* "Address Space Resource Descriptors", whose numbers have 2, 4 or 8 bytes. */
static void put_window(struct aml *a, unsigned type, unsigned flags, unsigned width, uint64_t first,
                       uint64_t last)
{
    assert(first <= last);
    put_uint(&a->w, width == 2 ? ITEM_WORD : width == 4 ? ITEM_DWORD : ITEM_QWORD, 1);
    put_uint(&a->w, 3 + 5 * width, 2);
    put_uint(&a->w, type, 1);
    put_uint(&a->w, MIN_FIXED_MAX_FIXED, 1); /* and produced, decoded by ranges */
    put_uint(&a->w, flags, 1);
    put_uint(&a->w, 0, width); /* granularity */
    put_uint(&a->w, first, width);
    put_uint(&a->w, last, width);
    put_uint(&a->w, 0, width); /* translation */
    put_uint(&a->w, last - first + 1, width);
}

void aml_resource_bus_window(struct aml *a, uint8_t first, uint8_t last)
{
    put_window(a, SPACE_BUS, 0, 2, first, last);
}

void aml_resource_io_window(struct aml *a, uint16_t first, uint16_t last)
{
    put_window(a, SPACE_IO, IO_ENTIRE_RANGE, 2, first, last);
}

void aml_resource_memory_window(struct aml *a, uint64_t first, uint64_t last)
{
    put_window(a, SPACE_MEMORY, MEMORY_READ_WRITE, last <= UINT32_MAX ? 4 : 8, first, last);
}
