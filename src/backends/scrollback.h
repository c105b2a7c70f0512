/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SCROLLBACK_H
#define SCROLLBACK_H

#include <stddef.h>
#include <stdint.h>

/*
 * The last bytes of an endless stream. A position counts bytes from the
 * stream's beginning, so readers keep their own and never disturb each other.
 * Memory grows with what is held, up to `limit`, which drops when memory runs out.
 */
struct scrollback {
    uint8_t *data;
    size_t room, limit; /* bytes; room is 0 or limit divided by a power of 2 */
    uint64_t head;      /* position after the newest byte */
};

/* Position of the oldest byte that is still held. */
uint64_t scrollback_tail(const struct scrollback *s);

/*
 * Append up to len bytes, overwriting nothing at or after `keep`. Returns how
 * many were taken: fewer when the buffer is full or out of memory.
 */
size_t scrollback_append(struct scrollback *s, const uint8_t *data, size_t len, uint64_t keep);

/* The longest piece from position `at` on that lies in one run of memory. */
const uint8_t *scrollback_peek(const struct scrollback *s, uint64_t at, size_t *ret_len);

void scrollback_fini(struct scrollback *s);

#endif
