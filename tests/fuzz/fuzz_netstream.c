/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_netstream: a passt that sends anything, in pieces of any size, to a guest whose buffers have
 * any size. Every frame that is taken must be what the stream says, byte for byte.
 *
 * An input is a byte for the size of the pieces, one for that of the buffers, and then the stream.
 */
#include <errno.h>
#include <linux/virtio_net.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/netstream.h"
#include "program.h"
#include "vmrun/netdev.h"

#define HEADER NETDEV_HEADER_BYTES

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The frame at *stream, which is moved behind it, has been taken into got. */
static void compare(const uint8_t **stream, const uint8_t *end, const uint8_t *got, size_t n,
                    size_t room)
{
    const uint8_t *at = *stream;

    require(end - at >= 4);
    size_t length = (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];

    require(length >= NETSTREAM_MIN_FRAME && length <= NETSTREAM_MAX_FRAME);
    require((size_t)(end - at) - 4 >= length);
    require(n == (HEADER + length < room ? HEADER + length : room));
    for (size_t i = 0; i < n; i++)
        require(got[i] == (i == 0       ? VIRTIO_NET_HDR_F_DATA_VALID
                           : i < HEADER ? 0
                                        : at[4 + i - HEADER]));
    *stream = at + 4 + length;
}

/* Take all there is. False: it was no stream of frames. */
static bool take(struct netstream *s, const uint8_t **stream, const uint8_t *end, size_t buffer)
{
    static uint8_t got[HEADER + NETSTREAM_MAX_FRAME];
    struct iovec iov[32];
    size_t room = 0;
    unsigned count = 0;
    int64_t n;

    for (; count < 32 && room < sizeof(got); count++) {
        size_t part = sizeof(got) - room < buffer ? sizeof(got) - room : buffer;

        iov[count] = (struct iovec){got + room, part};
        room += part;
    }
    do {
        memset(got, 0xaa, sizeof(got));
        n = netstream_receive(s, iov, count);
        if (n >= 0)
            compare(stream, end, got, (size_t)n, room);
    } while (n >= 0 || (n == -EAGAIN && netstream_more(s)));
    return n == -EAGAIN;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct netstream s = {0};
    struct error err;
    int ends[2];

    if (size < 2 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return 0;
    size_t piece = (size_t)data[0] * data[0] + 1, buffer = (size_t)data[1] * 32 + 1;
    const uint8_t *at = data + 2, *end = data + size, *taken = at;

    require(netstream_init(&s, ends[0], &err) == 0);
    while (at < end) {
        size_t part = (size_t)(end - at) < piece ? (size_t)(end - at) : piece;

        if (send(ends[1], at, part, MSG_NOSIGNAL) == (ssize_t)part)
            at += part;
        if (!take(&s, &taken, end, buffer))
            break;
    }
    netstream_fini(&s);
    close(ends[0]);
    close(ends[1]);
    return 0;
}
