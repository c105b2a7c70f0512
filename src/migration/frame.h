/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_FRAME_H
#define MIGRATION_FRAME_H

/*
 * Messages over a channel: typed, bounded, numbered, checksummed (docs/migration-protocol.md).
 *
 * A stream is used by one thread in each direction at a time. After an error of any call its
 * direction is fit for nothing more.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "channel.h"
#include "checksum.h"
#include "vmrun/error.h"

enum frame_type {
    FRAME_HELLO = 1,
    FRAME_WELCOME,
    FRAME_MACHINE,
    FRAME_CPUID,
    FRAME_MEMORY,
    FRAME_PREPARED,
    FRAME_PAGES,
    FRAME_MARK,
    FRAME_STATE,
    FRAME_EXTRA,
    FRAME_READY,
    FRAME_COMMIT,
    FRAME_DONE,
    FRAME_REFUSED,
    FRAME_PING,
    FRAME_PONG,
    FRAME_REHEARSAL,
    FRAME_REHEARSED,
};

#define FRAME_CRITICAL 1u /* who does not know the type refuses; set for all but EXTRA */
#define FRAME_ZSTD 2u     /* the body is one zstd frame; only PAGES, when it was agreed upon */

#define FRAME_HEADER_BYTES 24u
/* What PAGES has before its pages: region u32, pages u32, first u64, present[8] u64, zero[8] u64.
 */
#define FRAME_PAGES_HEADER_BYTES 144u
#define FRAME_PAGES_MAX 512u

const char *frame_name(enum frame_type type); /* "PAGES"; "?" of what is none */
/* The longest body of that type; 0 of what is none. */
uint32_t frame_max_bytes(enum frame_type type);

/* One for each channel; begins as {.channel = channel}. */
struct frame_stream {
    struct channel *channel;
    uint32_t sent, received; /* frames of each direction, those skipped included */

    /* frame.c's: of the frame that is being received. */
    uint32_t left;
    uint64_t checksum;
    enum frame_type type;
    struct checksum hash;
};

struct frame {
    enum frame_type type;
    uint16_t flags;
    uint32_t length; /* of the body, within the type's bounds */
    uint32_t number; /* for messages */
};

/*
 * body: up to FRAME_MAX_IOV parts. It is read twice, for the checksum and for the network: what a
 * guest may write meanwhile must be copied before. flags: FRAME_ZSTD or 0. Errors: those of
 * channel_send().
 */
#define FRAME_MAX_IOV 258 /* the runs of pages that are present can be 256 */
int frame_send(struct frame_stream *s, enum frame_type type, uint16_t flags,
               const struct iovec *body, unsigned count, struct error *err);

/*
 * The next frame's header; what is unknown and not critical is skipped before. Then its body is to
 * be taken by frame_recv_body(), in pieces if wanted and up to frame.length bytes in all, and
 * frame_recv_end(), which drops what was not taken and compares the checksum: nothing that was
 * taken may be believed before. Errors: -EPROTO "frame 12 (PAGES): …"; those of channel_recv(),
 * with the same words before.
 */
int frame_recv(struct frame_stream *s, struct frame *ret_frame, struct error *err);
int frame_recv_body(struct frame_stream *s, const struct iovec *iov, unsigned count,
                    struct error *err);
int frame_recv_end(struct frame_stream *s, struct error *err);
/*
 * The whole frame's body, malloc()ed, with a NUL behind it. Errors: as above; -EPROTO, it is of
 * another type; -ECONNREFUSED, it is a REFUSED, with the other side's words; -ENOMEM.
 */
int frame_expect(struct frame_stream *s, enum frame_type type, void **ret_body, size_t *ret_len,
                 struct error *err);
/* The words of a REFUSED's body: printable ones. Fills err; returns -ECONNREFUSED. */
int frame_refusal(const void *body, size_t len, struct error *err);
/* Say why not, and never mind whether it arrives. */
void frame_refuse(struct frame_stream *s, const struct error *why);

#endif
