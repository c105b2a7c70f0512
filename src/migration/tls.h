/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_TLS_H
#define MIGRATION_TLS_H

/*
 * TLS 1.3 over a connected socket that does not block; nothing older, and never without proof from
 * both sides: certificates, or a key that both have. libgnutls is opened when the first of these is
 * made and stays; without it everything else works.
 */
#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "channel.h"

struct tls;
struct tls_session;

/*
 * What this side proves itself with, read from the files of security. Shared: its sessions hold
 * it too. Errors: -EINVAL, some are missing, or are too many, or make no sense; -EPERM, a secret
 * that others can read; -ENOTSUP, no libgnutls; of open() and read().
 */
int tls_create(const struct channel_security *security, struct tls **ret_tls, struct error *err);
void tls_destroy(struct tls *tls);

/* host: whom the certificate of the other side is to name; NULL for the side that listens. The
 * socket stays the caller's. Errors: -ENOMEM, -EINVAL. */
int tls_session_create(struct tls *tls, int fd, const char *host, struct tls_session **ret_session,
                       struct error *err);
/* Says good-bye, if that can be done without waiting. */
void tls_session_destroy(struct tls_session *session);

/* A step of the handshake. Errors: -EAGAIN (err untouched), poll for *ret_events; -EPROTO. */
int tls_handshake(struct tls_session *session, short *ret_events, struct error *err);

/*
 * What can be moved at once, at least a byte. One thread in each direction. After -EAGAIN (err
 * untouched; poll for out or in) tls_send() is to be called with the same bytes. Other errors:
 * -EPIPE, -ECONNRESET, -EPROTO …
 */
ssize_t tls_send(struct tls_session *session, const struct iovec *iov, unsigned count,
                 struct error *err);
ssize_t tls_recv(struct tls_session *session, const struct iovec *iov, struct error *err);
/* Whether bytes are here that poll() knows nothing of. */
bool tls_pending(struct tls_session *session);

#endif
