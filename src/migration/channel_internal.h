/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_CHANNEL_INTERNAL_H
#define MIGRATION_CHANNEL_INTERNAL_H

/*
 * What the files of a channel share: channel.c moves bytes, channel_open.c makes connections,
 * channel_limit.c keeps time.
 */
#include <stdatomic.h>

#include "channel.h"
#include "tls.h"

#define CHANNEL_TIMEOUT_MS 15000

struct channel {
    int fd;                  /* never blocks */
    int wake;                /* an eventfd: once interrupted, readable for ever */
    char *peer;              /* for messages */
    struct tls_session *tls; /* or NULL: plain TCP */
    atomic_bool interrupted;
    atomic_int timeout_ms;
    _Atomic(struct channel_limit *) limit;
    atomic_uint_least64_t sent, received;
    atomic_uint_least64_t until_ns; /* what is sent and received; UINT64_MAX: for ever */
    int send_failed, recv_failed;   /* each its own thread's: half-way, with that errno */
};

/* Takes fd, a connected socket, and tls on success. Errors: -ENOMEM, -EMFILE. */
int channel_create(int fd, struct tls_session *tls, const char *peer, struct channel **ret_channel,
                   struct error *err);

/* CLOCK_MONOTONIC. */
uint64_t channel_now_ns(void);
/* When that many ms are over: UINT64_MAX for < 0. */
uint64_t channel_deadline_ns(int timeout_ms);
/*
 * poll() until then, signals or not. Returns what it returns, or -errno. It looks at least once.
 */
struct pollfd;
int channel_poll(struct pollfd *fds, unsigned count, uint64_t deadline_ns);

/* How many of `want` bytes may go now, at least 1; or 0: ask again in *ret_wait_ns. */
size_t channel_limit_take(struct channel_limit *limit, uint64_t now_ns, size_t want,
                          uint64_t *ret_wait_ns);

#endif
