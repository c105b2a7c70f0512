/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_MEMORY_CHANNEL_H
#define TEST_MEMORY_CHANNEL_H

/*
 * A channel that is two pieces of memory: what was sent is kept, what is received was put there.
 * The functions themselves stand here, in the place of channel.c's: for one file of a program.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../../src/migration/frame.h"

struct channel {
    const uint8_t *in;
    size_t in_len, in_at;
    uint8_t *out; /* free() it */
    size_t out_len;
};

int channel_send(struct channel *channel, const struct iovec *iov, unsigned count,
                 struct error *err)
{
    for (unsigned i = 0; i < count; i++) {
        uint8_t *grown = realloc(channel->out, channel->out_len + iov[i].iov_len + 1);

        if (!grown)
            return error_set(err, ENOMEM, "no memory for what is sent");
        channel->out = grown;
        if (iov[i].iov_len)
            memcpy(grown + channel->out_len, iov[i].iov_base, iov[i].iov_len);
        channel->out_len += iov[i].iov_len;
    }
    return 0;
}

int channel_recv(struct channel *channel, const struct iovec *iov, unsigned count,
                 struct error *err)
{
    for (unsigned i = 0; i < count; i++) {
        if (channel->in_len - channel->in_at < iov[i].iov_len)
            return error_set(err, EPIPE, "the other side closed the connection");
        if (iov[i].iov_len)
            memcpy(iov[i].iov_base, channel->in + channel->in_at, iov[i].iov_len);
        channel->in_at += iov[i].iov_len;
    }
    return 0;
}

#endif
