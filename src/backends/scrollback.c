/* SPDX-License-Identifier: Apache-2.0 */
/* scrollback: a ring of bytes that doubles until it has reached its limit. */
#include "scrollback.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_ROOM 4096

uint64_t scrollback_tail(const struct scrollback *s)
{
    return s->head > s->room ? s->head - s->room : 0;
}

/* Double the room; a position keeps its place modulo the room, so bytes are copied one run at a
 * time. */
static int grow(struct scrollback *s)
{
    size_t room = s->room ? s->room * 2 : FIRST_ROOM;

    if (room > s->limit)
        room = s->limit;
    uint8_t *data = malloc(room);
    if (!data) {
        if (s->room)
            s->limit = s->room; /* make do with what there is */
        return -1;
    }
    for (uint64_t at = scrollback_tail(s); at < s->head;) {
        size_t len;
        const uint8_t *from = scrollback_peek(s, at, &len);

        if (len > room - at % room)
            len = room - at % room;
        memcpy(data + at % room, from, len);
        at += len;
    }
    free(s->data);
    s->data = data;
    s->room = room;
    return 0;
}

size_t scrollback_append(struct scrollback *s, const uint8_t *data, size_t len, uint64_t keep)
{
    size_t taken = 0;

    while (taken < len) {
        if (s->head >= s->room && s->room < s->limit && grow(s) < 0 && s->room == 0)
            break;
        size_t at = (size_t)(s->head % s->room);
        uint64_t held = s->head > keep ? s->head - keep : 0;
        size_t piece = s->room - at;

        if (held >= s->room)
            break;
        if (piece > s->room - held)
            piece = (size_t)(s->room - held);
        if (piece > len - taken)
            piece = len - taken;
        memcpy(s->data + at, data + taken, piece);
        s->head += piece;
        taken += piece;
    }
    return taken;
}

const uint8_t *scrollback_peek(const struct scrollback *s, uint64_t at, size_t *ret_len)
{
    if (at >= s->head) {
        *ret_len = 0;
        return NULL;
    }
    size_t place = (size_t)(at % s->room);
    uint64_t len = s->head - at;

    *ret_len = len < s->room - place ? (size_t)len : s->room - place;
    return s->data + place;
}

void scrollback_fini(struct scrollback *s)
{
    free(s->data);
    *s = (struct scrollback){0};
}
