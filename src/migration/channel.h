/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_CHANNEL_H
#define MIGRATION_CHANNEL_H

/*
 * One connection between two hosts: TCP, or TLS over it. Blocking, used by one thread in each
 * direction at a time; channel_interrupt() from any. It moves bytes and knows nothing of them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmrun/error.h"
#include "vmrun/migration.h" /* struct channel_security */

struct channel;
struct channel_listener;
struct channel_limit;

/*
 * url: "tcp://HOST:PORT" or "tcp://[V6]:PORT". Port 0: the kernel chooses. A name is looked up, and
 * the first of its addresses that can be listened on is. Errors: -EINVAL, the url, or security
 * contradicts itself, or its files; -EPERM, not loopback and neither TLS nor insecure; -ENOTSUP,
 * libgnutls is missing; -EHOSTUNREACH, no such name; -EADDRINUSE, -EADDRNOTAVAIL, -EACCES …; errors
 * of open() of the files.
 */
int channel_listen(const struct channel_security *security, const char *url,
                   struct channel_listener **ret_listener, struct error *err);
/* "tcp://127.0.0.1:4711", with the port that the kernel chose; valid until destroyed. */
const char *channel_listener_url(const struct channel_listener *listener);
/* For poll(): readable when channel_accept() has something to do. */
int channel_listener_fd(const struct channel_listener *listener);
/*
 * The next connection, its handshake done; one thread at a time. timeout_ms < 0: ever; 0: only what
 * is there. Errors: -ETIMEDOUT; -EPROTO, a stranger without TLS, or with the wrong one, or a silent
 * one, was sent away: the listener goes on; -EMFILE, -ENOMEM ….
 */
int channel_accept(struct channel_listener *listener, int timeout_ms, struct channel **ret_channel,
                   struct error *err);
void channel_listener_destroy(struct channel_listener *listener);

/*
 * Each of the name's addresses in turn; timeout_ms is for all together, < 0 as long as the kernel
 * tries. With TLS it waits for the other side's channel_accept(). Errors: as channel_listen();
 * -ECONNREFUSED, -ETIMEDOUT, -ENETUNREACH …; -EPROTO, no TLS there or the wrong one.
 */
int channel_connect(const struct channel_security *security, const char *url, int timeout_ms,
                    struct channel **ret_channel, struct error *err);
/*
 * Nothing more is sent: wait until the other side has hung up, for so long, or what was said last
 * could be lost to it when it speaks meanwhile. Only channel_destroy() may follow.
 */
void channel_finish(struct channel *channel, int timeout_ms);
/* No thread may be in it any more. What was sent arrives, as long as the other side reads it. */
void channel_destroy(struct channel *channel);

/*
 * Nothing moving for that long in a call is -ETIMEDOUT, in calls from then on. Default 15,000; < 0:
 * never. Each direction for itself; what the other side acknowledges has moved. The kernel gives up
 * a connection whose other side acknowledges nothing after as long, and after 15 s at the earliest.
 */
void channel_set_timeout(struct channel *channel, int timeout_ms);
/*
 * What is sent and received from now on has to have gone and come within so long, all together, or
 * -ETIMEDOUT: who sends or takes a byte now and then keeps nobody for ever. < 0: never again. Heard
 * of by the next call.
 */
void channel_set_patience(struct channel *channel, int ms);
/*
 * All of it, or an error: -EPIPE, -ECONNRESET, the other side is gone; -ETIMEDOUT; -ECANCELED,
 * interrupted; -EPROTO, TLS was tampered with; -EHOSTUNREACH …. Parts of any length, of no length
 * as well.
 *
 * After a call that failed half-way nobody could tell any more where a message begins: each later
 * one in its direction fails as it did. The other direction goes on: when a send fails because the
 * other side went, its last words can still be received.
 */
int channel_send(struct channel *channel, const struct iovec *iov, unsigned count,
                 struct error *err);
int channel_recv(struct channel *channel, const struct iovec *iov, unsigned count,
                 struct error *err);
/* Whether there is something to receive, an end or an interrupt included: wait up to timeout_ms, <
 * 0 ever. On the thread that receives. */
bool channel_readable(struct channel *channel, int timeout_ms);
/* Any thread, idempotent: whoever waits in the channel leaves it, now and later, with -ECANCELED.
 * The other side does not notice before it is destroyed. */
void channel_interrupt(struct channel *channel);
/* As if it had not been, but for what was received or sent half-way. No thread may be in it. */
void channel_end_interrupt(struct channel *channel);
/* Bytes that channel_send() and channel_recv() moved; any thread. */
uint64_t channel_sent_bytes(const struct channel *channel);
uint64_t channel_received_bytes(const struct channel *channel);
/* "tcp://192.0.2.1:4711": the url that it connected to, or where who was accepted comes from. */
const char *channel_peer(const struct channel *channel);
/* Of those sent, what the other side's kernel has not acknowledged yet; any thread. */
uint64_t channel_unsent_bytes(const struct channel *channel);

/*
 * A limit that several channels share: bytes a second, 0 none. It delays senders, in slices of
 * 10 ms. Any thread may change it, at any time; it must outlive its channels.
 */
#define CHANNEL_LIMIT_SLICES_PER_S 100
int channel_limit_create(uint64_t bytes_per_second, struct channel_limit **ret_limit,
                         struct error *err);
void channel_limit_set(struct channel_limit *limit, uint64_t bytes_per_second);
void channel_limit_destroy(struct channel_limit *limit);
/* NULL: none. Any thread. */
void channel_set_limit(struct channel *channel, struct channel_limit *limit);

#endif
