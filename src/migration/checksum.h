/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_CHECKSUM_H
#define MIGRATION_CHECKSUM_H

/* XXH3-64 with seed 0, of what is at hand or of what comes in pieces; the checksum of snapshots and
 * of frames. Any thread; a struct checksum is one thread's, and not copied between begin and end.
 */
#include <stddef.h>
#include <stdint.h>

#define CHECKSUM_STATE_BYTES 576
#define CHECKSUM_ALIGN 64 /* wherever it lies, the heap too: there is room to align it */

struct checksum {
    unsigned char state[CHECKSUM_STATE_BYTES + CHECKSUM_ALIGN];
};

uint64_t checksum_of(const void *data, size_t len);

void checksum_begin(struct checksum *checksum);
void checksum_add(struct checksum *checksum, const void *data, size_t len);
uint64_t checksum_end(const struct checksum *checksum);

/* One for each width of the CPU's vectors that is worth it. */
struct checksum_ops {
    uint64_t (*of)(const void *data, size_t len);
    void (*begin)(struct checksum *checksum);
    void (*add)(struct checksum *checksum, const void *data, size_t len);
    uint64_t (*end)(const struct checksum *checksum);
};

extern const struct checksum_ops checksum_plain;
extern const struct checksum_ops checksum_avx2; /* on x86-64 alone */

#endif
