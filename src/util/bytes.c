/* SPDX-License-Identifier: Apache-2.0 */
#include "vmrun/bytes.h"

#include <stdlib.h>
#include <string.h>

void put_bytes(struct writer *w, const void *data, size_t len)
{
    if (w->failed || len == 0)
        return;

    if (w->room - w->len < len) {
        size_t room = w->len + len + w->room;
        uint8_t *grown = room >= len ? realloc(w->data, room) : NULL;

        if (!grown) {
            w->failed = true;
            return;
        }
        w->data = grown;
        w->room = room;
    }
    memcpy(w->data + w->len, data, len);
    w->len += len;
}

void put_uint(struct writer *w, uint64_t value, unsigned size)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < size; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    put_bytes(w, bytes, size);
}

const void *get_bytes(struct reader *r, size_t len)
{
    if (r->failed || r->len - r->at < len) {
        r->failed = true;
        return NULL;
    }
    if (len == 0)
        return ""; /* an empty stream has no data to point into */
    r->at += len;
    return r->data + r->at - len;
}

uint64_t get_uint(struct reader *r, unsigned size)
{
    const uint8_t *bytes = get_bytes(r, size);
    uint64_t value = 0;

    for (unsigned i = 0; bytes && i < size; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}
