/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_PAGES_H
#define MIGRATION_PAGES_H

/* RAM in frames: what PAGES says of a part of 2 MiB (docs/migration-protocol.md). */
#include <stdint.h>

#include "frame.h"
#include "rounds.h"
#include "vmrun/memory.h"

/* What a worker copies into before it sends; it fits the cache of a CPU. */
#define PAGES_BATCH 64u
#define PAGES_BUFFER_BYTES (PAGES_BATCH * GUEST_PAGE_SIZE)

struct pages_counts {
    uint64_t data, zero; /* pages */
};
/* buffer: PAGES_BUFFER_BYTES. counts are added to. Errors: those of frame_send(). */
int pages_send(struct frame_stream *stream, uint8_t *buffer, const struct rounds_chunk *chunk,
               struct pages_counts *counts, struct error *err);

/*
 * Memory that is being received. Chunks of 2 MiB may come from several threads at once, each chunk
 * always from the same one.
 */
struct pages_target {
    struct guest_memory *memory;          /* fresh: all zeros */
    uint64_t *filled[MEMORY_MAX_REGIONS]; /* pages that are perhaps no longer so */
};
int pages_target_init(struct pages_target *target, struct guest_memory *memory, struct error *err);
void pages_target_fini(struct pages_target *target); /* zeroed is fine */
/*
 * Take the frame's pages to their places; after a failure the memory is worth nothing. Errors:
 * -EPROTO; those of frame_recv_body().
 */
int pages_receive(struct pages_target *target, struct frame_stream *stream,
                  const struct frame *frame, struct error *err);

#endif
