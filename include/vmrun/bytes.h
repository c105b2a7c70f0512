/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BYTES_H
#define VMRUN_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Little-endian byte streams in memory. Both remember their first failure
 * (out of memory, read past the end), so a caller checks `failed` once, at
 * the end: a failed writer drops what is put, a failed reader yields zeros.
 */
struct writer {
    uint8_t *data; /* free() it when done */
    size_t len, room;
    bool failed;
};

struct reader {
    const uint8_t *data;
    size_t len, at;
    bool failed;
};

void put_bytes(struct writer *w, const void *data, size_t len);
void put_uint(struct writer *w, uint64_t value, unsigned size);

/* NULL when fewer than len bytes are left. */
const void *get_bytes(struct reader *r, size_t len);
uint64_t get_uint(struct reader *r, unsigned size);

#endif
