/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BACKENDS_NETSTREAM_H
#define BACKENDS_NETSTREAM_H

/*
 * Ethernet frames over a stream socket, each behind its length, 32 bits, the highest byte first.
 * What comes is read in large pieces, what goes leaves together; nothing ever waits. Who is at the
 * other end may send anything. Calls of one thread at a time.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmrun/error.h"

#define NETSTREAM_LENGTH_BYTES 4
#define NETSTREAM_MIN_FRAME 14 /* addresses and type */
#define NETSTREAM_MAX_FRAME (18 + 65536)
#define NETSTREAM_MAX_SENT 65535 /* passt's longest */
#define NETSTREAM_IOVS 1024      /* IOV_MAX */
#define NETSTREAM_FRAMES 128

struct netstream {
    int fd;
    uint8_t *in; /* what came and was not taken is from in_at to in_end */
    size_t in_at, in_end;
    uint8_t *rest; /* what left only in part: from rest_at to rest_end */
    size_t rest_at, rest_end;
    /* What leaves at the next flush. */
    struct iovec out[NETSTREAM_IOVS];
    uint8_t lengths[NETSTREAM_FRAMES][NETSTREAM_LENGTH_BYTES];
    unsigned out_count, frames;
    size_t out_bytes;
};

/* fd: a non-blocking stream socket, which stays the caller's. Errors: -ENOMEM. */
int netstream_init(struct netstream *s, int fd, struct error *err);
void netstream_fini(struct netstream *s);  /* also of one that is all zeros */
void netstream_reset(struct netstream *s); /* the next byte, either way, begins a frame */

/*
 * The next frame into iov behind a header that says that its checksums are good: bytes with the
 * header; what does not fit is cut off. One system call at most. Errors: -EAGAIN; -EPROTO no frame
 * has this length, and there will be no other; -EPIPE the other end is closed; -errno of recv(2).
 */
int64_t netstream_receive(struct netstream *s, const struct iovec *iov, unsigned count);
bool netstream_more(const struct netstream *s); /* a whole frame is at hand, or what is none */
uint32_t netstream_length(const struct netstream *s); /* after -EPROTO: what it was */

/*
 * A frame behind its header, for the next flush: what iov points to must stay until then. Bytes.
 * It goes as it is, without checksums where they are left to others: passt looks at none.
 * Errors: -EAGAIN earlier ones have to wait; -EINVAL no frame, too many pieces, too long, or to be
 * cut up; -errno of sendmsg(2), with earlier ones lost.
 */
int64_t netstream_send(struct netstream *s, const struct iovec *iov, unsigned count);
/* Errors: -EAGAIN, and the rest was copied; -errno of sendmsg(2), and all is lost. */
int netstream_flush(struct netstream *s);

#endif
