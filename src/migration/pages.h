/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_PAGES_H
#define MIGRATION_PAGES_H

/* RAM in frames: what PAGES says of a part of 2 MiB (docs/migration-protocol.md). */
#include <stdint.h>

#include "frame.h"
#include "rounds.h"
#include "vmrun/memory.h"
#include "zstd_library.h"

struct pages_counts {
    uint64_t data, zero; /* pages */
};

/* What one thread needs to send. */
struct pages_sender {
    struct frame_stream *stream;
    uint8_t *buffer, *packed;
    const struct zstd *zstd; /* NULL: as they are */
    struct ZSTD_CCtx_s *packer;
    struct pages_counts counts;
};
/* zstd: to compress with, or NULL; it outlives the sender. Errors: -ENOMEM. */
int pages_sender_init(struct pages_sender *sender, struct frame_stream *stream,
                      const struct zstd *zstd, struct error *err);
void pages_sender_fini(struct pages_sender *sender); /* zeroed is fine */
/* Errors: those of frame_send(). */
int pages_send(struct pages_sender *sender, const struct rounds_chunk *chunk, struct error *err);

/*
 * Memory that is being received. Chunks of 2 MiB may come from several threads at once, each chunk
 * always from the same one.
 */
struct pages_target {
    const struct zstd *zstd;              /* NULL: nothing compressed is taken */
    struct guest_memory *memory;          /* fresh: all zeros */
    uint64_t *filled[MEMORY_MAX_REGIONS]; /* pages that are perhaps no longer so */
};
int pages_target_init(struct pages_target *target, struct guest_memory *memory,
                      const struct zstd *zstd, struct error *err);
void pages_target_fini(struct pages_target *target); /* zeroed is fine */
/*
 * Take the frame's pages to their places; after a failure the memory is worth nothing. Errors:
 * -EPROTO; those of frame_recv_body().
 */
int pages_receive(struct pages_target *target, struct frame_stream *stream,
                  const struct frame *frame, struct error *err);

#endif
