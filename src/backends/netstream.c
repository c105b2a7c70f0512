/* SPDX-License-Identifier: Apache-2.0 */
/*
 * netstream: frames over a stream, as QEMU's netdevs of type stream and passt(1) speak.
 *
 * The one thing to know: half a length that has left obliges us to send just that frame, whatever
 * the guest does to its memory meanwhile. So what a full socket did not take is copied (`rest`) and
 * goes first; only then is the next frame looked at.
 */
#include "netstream.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "vmrun/netdev.h"

#define HEADER NETDEV_HEADER_BYTES
#define LENGTH NETSTREAM_LENGTH_BYTES
#define LONGEST ((size_t)LENGTH + NETSTREAM_MAX_FRAME)
#define IN_BYTES (4 * LONGEST)
#define OUT_BYTES (2 * LONGEST)

int netstream_init(struct netstream *s, int fd, struct error *err)
{
    s->fd = fd;
    s->in = malloc(IN_BYTES);
    s->rest = malloc(OUT_BYTES);
    netstream_reset(s);
    if (s->in && s->rest)
        return 0;
    netstream_fini(s);
    return error_set(err, ENOMEM, "out of memory");
}

void netstream_fini(struct netstream *s)
{
    free(s->in);
    free(s->rest);
    s->in = s->rest = NULL;
}

void netstream_reset(struct netstream *s)
{
    s->in_at = s->in_end = 0;
    s->rest_at = s->rest_end = 0;
    s->out_count = s->frames = 0;
    s->out_bytes = 0;
}

/* Receiving */

uint32_t netstream_length(const struct netstream *s)
{
    const uint8_t *at = s->in + s->in_at;

    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static bool is_frame(uint64_t length)
{
    return length >= NETSTREAM_MIN_FRAME && length <= NETSTREAM_MAX_FRAME;
}

bool netstream_more(const struct netstream *s)
{
    size_t have = s->in_end - s->in_at;

    return have >= LENGTH &&
           (!is_frame(netstream_length(s)) || have - LENGTH >= netstream_length(s));
}

/* No whole frame is at hand: read on behind what there is, which is less than one. */
static int fill(struct netstream *s)
{
    ssize_t n;

    if (s->in_at == s->in_end) {
        s->in_at = s->in_end = 0;
    } else if (IN_BYTES - s->in_end < IN_BYTES / 2) {
        memmove(s->in, s->in + s->in_at, s->in_end - s->in_at);
        s->in_end -= s->in_at;
        s->in_at = 0;
    }
    do
        n = recv(s->fd, s->in + s->in_end, IN_BYTES - s->in_end, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 ? -errno : -EPIPE;
    s->in_end += (size_t)n;
    return 0;
}

/* The header and then the frame, as much of it as there is room for. */
static int64_t hand_over(const uint8_t *frame, size_t length, const struct iovec *iov,
                         unsigned count)
{
    /* No wire was between us. */
    static const struct virtio_net_hdr_v1 header = {.flags = VIRTIO_NET_HDR_F_DATA_VALID};
    size_t done = 0, at = 0;

    for (unsigned i = 0; i < count && at < length; i++) {
        uint8_t *to = iov[i].iov_base;
        size_t room = iov[i].iov_len, part = room < HEADER - done ? room : HEADER - done;

        memcpy(to, (const uint8_t *)&header + done, part);
        done += part;
        room -= part;
        to += part;
        part = room < length - at ? room : length - at;
        memcpy(to, frame + at, part);
        at += part;
    }
    return (int64_t)(done + at);
}

int64_t netstream_receive(struct netstream *s, const struct iovec *iov, unsigned count)
{
    int r = netstream_more(s) ? 0 : fill(s);
    uint32_t length;
    int64_t n;

    if (r < 0)
        return r;
    if (!netstream_more(s))
        return -EAGAIN; /* there may be more to read, but others have their turn first */
    length = netstream_length(s);
    if (!is_frame(length))
        return -EPROTO;
    n = hand_over(s->in + s->in_at + LENGTH, length, iov, count);
    s->in_at += LENGTH + length;
    return n;
}

/* Sending */

/* Bytes that left, which may be 0, or -errno. */
static ssize_t send_some(struct netstream *s, struct iovec *iov, unsigned count)
{
    const struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t n;

    do
        n = sendmsg(s->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    return n;
}

static int send_rest(struct netstream *s)
{
    struct iovec iov = {s->rest + s->rest_at, s->rest_end - s->rest_at};
    ssize_t n;

    if (s->rest_at == s->rest_end)
        return 0;
    n = send_some(s, &iov, 1);
    if (n < 0)
        return (int)n;
    s->rest_at += (size_t)n;
    return s->rest_at < s->rest_end ? -EAGAIN : 0;
}

/* All of iov but the first bytes. */
static void keep_rest(struct netstream *s, size_t skip)
{
    s->rest_at = s->rest_end = 0;
    for (unsigned i = 0; i < s->out_count; i++) {
        const struct iovec *part = &s->out[i];
        size_t gone = skip < part->iov_len ? skip : part->iov_len;

        memcpy(s->rest + s->rest_end, (const uint8_t *)part->iov_base + gone, part->iov_len - gone);
        s->rest_end += part->iov_len - gone;
        skip -= gone;
    }
}

int netstream_flush(struct netstream *s)
{
    int r = send_rest(s);
    ssize_t n = r == 0 && s->out_count ? send_some(s, s->out, s->out_count) : 0;

    if (n < 0)
        r = (int)n;
    if (r < 0 && r != -EAGAIN) {
        netstream_reset(s);
        return r;
    }
    if (r == 0 && (size_t)n < s->out_bytes) {
        keep_rest(s, (size_t)n);
        r = -EAGAIN;
    }
    s->out_count = s->frames = 0;
    s->out_bytes = 0;
    return r;
}

/* The bytes of a frame, and the header before it; 0: it is none. */
static size_t frame_bytes(const struct iovec *iov, unsigned count,
                          struct virtio_net_hdr_v1 *ret_header)
{
    uint8_t *to = (uint8_t *)ret_header;
    size_t bytes = 0;

    for (unsigned i = 0; i < count; i++) {
        size_t part = bytes < HEADER ? HEADER - bytes : 0;

        part = part < iov[i].iov_len ? part : iov[i].iov_len;
        memcpy(to, iov[i].iov_base, part);
        to += part;
        bytes += iov[i].iov_len;
    }
    return bytes > HEADER && is_frame(bytes - HEADER) ? bytes - HEADER : 0;
}

int64_t netstream_send(struct netstream *s, const struct iovec *iov, unsigned count)
{
    struct virtio_net_hdr_v1 header = {0};
    size_t bytes = frame_bytes(iov, count, &header), skip = HEADER;

    if (bytes == 0 || bytes > NETSTREAM_MAX_SENT || count >= NETSTREAM_IOVS ||
        header.gso_type != VIRTIO_NET_HDR_GSO_NONE)
        return -EINVAL;
    if (s->rest_at < s->rest_end || s->frames == NETSTREAM_FRAMES ||
        s->out_count + count >= NETSTREAM_IOVS || s->out_bytes + LENGTH + bytes > OUT_BYTES) {
        int r = netstream_flush(s);

        if (r < 0)
            return r;
    }
    uint8_t *length = s->lengths[s->frames++];

    for (unsigned i = 0; i < LENGTH; i++)
        length[i] = (uint8_t)(bytes >> 8 * (LENGTH - 1 - i));
    s->out[s->out_count++] = (struct iovec){length, LENGTH};
    for (unsigned i = 0; i < count; i++) {
        size_t gone = skip < iov[i].iov_len ? skip : iov[i].iov_len;

        if (gone < iov[i].iov_len)
            s->out[s->out_count++] =
                (struct iovec){(uint8_t *)iov[i].iov_base + gone, iov[i].iov_len - gone};
        skip -= gone;
    }
    s->out_bytes += LENGTH + bytes;
    return (int64_t)(HEADER + bytes);
}
