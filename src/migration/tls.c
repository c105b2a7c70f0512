/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls: one session of TLS 1.3.
 *
 * A lock around each call into GnuTLS, which never waits: it allows one thread in each direction,
 * but not while it changes its keys, as it does by itself after 2^24 records (256 GiB).
 *
 * With the handshake the side that listens has the last word in TLS 1.3, and does not say it. Here
 * it does, with one byte: so who connects with a wrong certificate hears of it at once.
 */
#include "tls.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tls_internal.h"

#define RECORD_BYTES 16384
#define WELCOME 'v'
/* The first is the fastest, and the only one that goes with a pre-shared key by default. */
#define PRIORITIES \
    "SECURE128:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305"

struct tls_session {
    struct tls *tls;
    pthread_mutex_t lock;
    gnutls_session_t gnutls; /* lock */
    bool server, shaken, failed;
    size_t in_flight; /* of a record that did not all go: its bytes, or 0 */
    char *host;
    gnutls_typed_vdata_st wanted[2]; /* of the other side's certificate */
    uint8_t gather[RECORD_BYTES];
};

static int set_up(struct tls_session *s, int fd)
{
    const struct tls_gnutls *g = tls_gnutls();
    struct tls *tls = s->tls;
    /* No tickets: nobody comes back with one. */
    unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS;
    int r = g->init(&s->gnutls, (s->server ? GNUTLS_SERVER : GNUTLS_CLIENT) | flags);

    if (r < 0)
        return r;
    g->transport_set_int2(s->gnutls, fd, fd);
    g->session_set_ptr(s->gnutls, tls);
    r = g->priority_set_direct(
        s->gnutls, tls->certificates ? PRIORITIES : PRIORITIES ":-KX-ALL:+ECDHE-PSK", NULL);
    if (r < 0)
        return r;
    if (!tls->certificates)
        return g->credentials_set(s->gnutls, GNUTLS_CRD_PSK,
                                  s->server ? (void *)tls->psk_server : (void *)tls->psk_client);
    if (s->server) {
        g->certificate_server_set_request(s->gnutls, GNUTLS_CERT_REQUIRE);
        /* Not whom we trust: they would keep a wrong one to themselves, and nobody knew why. */
        g->certificate_send_x509_rdn_sequence(s->gnutls, 1);
    }
    s->wanted[0] = (gnutls_typed_vdata_st){
        .type = GNUTLS_DT_KEY_PURPOSE_OID,
        .data = (void *)(s->server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER)};
    s->wanted[1] = (gnutls_typed_vdata_st){.type = GNUTLS_DT_DNS_HOSTNAME, .data = (void *)s->host};
    g->session_set_verify_cert2(s->gnutls, s->wanted, s->server ? 1 : 2, 0);
    return g->credentials_set(s->gnutls, GNUTLS_CRD_CERTIFICATE, tls->certificates);
}

int tls_session_create(struct tls *tls, int fd, const char *host, struct tls_session **ret_session,
                       struct error *err)
{
    struct tls_session *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return error_set(err, ENOMEM, "TLS: out of memory");
    pthread_mutex_init(&s->lock, NULL);
    atomic_fetch_add(&tls->users, 1);
    s->tls = tls;
    s->server = !host;
    if (host)
        s->host = strdup(host);
    r = host && !s->host ? GNUTLS_E_MEMORY_ERROR : set_up(s, fd);
    if (r < 0) {
        r = error_set(err, r == GNUTLS_E_MEMORY_ERROR ? ENOMEM : EINVAL, "TLS: %s",
                      tls_gnutls()->strerror(r));
        tls_session_destroy(s);
        return r;
    }
    *ret_session = s;
    return 0;
}

void tls_session_destroy(struct tls_session *s)
{
    if (!s)
        return;
    if (s->shaken && !s->failed && !s->in_flight)
        (void)tls_gnutls()->bye(s->gnutls, GNUTLS_SHUT_WR);
    if (s->gnutls)
        tls_gnutls()->deinit(s->gnutls);
    pthread_mutex_destroy(&s->lock);
    tls_destroy(s->tls);
    free(s->host);
    free(s);
}

static bool again(ssize_t r)
{
    return r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED;
}

/* What is wrong with their certificate. */
static int untrusted(struct tls_session *s, struct error *err)
{
    const struct tls_gnutls *g = tls_gnutls();
    unsigned status = g->session_get_verify_cert_status(s->gnutls);
    gnutls_datum_t words = {0};
    int r;

    if (status & GNUTLS_CERT_EXPIRED)
        return error_set(err, EPROTO, "the other side's certificate has expired");
    if (status & GNUTLS_CERT_NOT_ACTIVATED)
        return error_set(err, EPROTO,
                         "the other side's certificate is not valid yet: are both clocks right?");
    if (status & GNUTLS_CERT_SIGNER_NOT_FOUND)
        return error_set(err, EPROTO, "the other side's certificate was not signed by --tls-ca");
    if (status & GNUTLS_CERT_UNEXPECTED_OWNER)
        return error_set(err, EPROTO, "the other side's certificate does not name '%s'", s->host);
    if (status & GNUTLS_CERT_PURPOSE_MISMATCH)
        return error_set(err, EPROTO,
                         "the other side's certificate is not for TLS %s (its extended key usage)",
                         s->server ? "clients" : "servers");
    if (g->certificate_verification_status_print(status, GNUTLS_CRT_X509, &words, 0) < 0)
        return error_set(err, EPROTO, "the other side's certificate is not trusted");
    r = error_set(err, EPROTO, "the other side's certificate: %s", (const char *)words.data);
    free(words.data); /* what gnutls_free() is */
    return r;
}

static int failed_handshake(struct tls_session *s, int r, struct error *err)
{
    const struct tls_gnutls *g = tls_gnutls();
    const char *cure = s->tls->certificates
                           ? "has the other side --tls-cert, --tls-key and --tls-ca, of the same "
                             "authority?"
                           : "has the other side the same --tls-psk?";

    switch (r) {
    case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR: return untrusted(s, err);
    case GNUTLS_E_FATAL_ALERT_RECEIVED:
        return error_set(err, EPROTO, "the other side refused us (%s): %s",
                         g->alert_get_name(g->alert_get(s->gnutls)), cure);
    case GNUTLS_E_SRP_PWD_ERROR: /* of find_key() */
        return error_set(err, EPROTO, "the other side has a key of another identity: %s", cure);
    case GNUTLS_E_PREMATURE_TERMINATION:
    case GNUTLS_E_PULL_ERROR:
    case GNUTLS_E_PUSH_ERROR:
        return error_set(err, EPROTO, "the other side hung up in the TLS handshake: %s", cure);
    default: return error_set(err, EPROTO, "TLS failed (%s) %s", g->strerror(r), cure);
    }
}

int tls_handshake(struct tls_session *s, short *ret_events, struct error *err)
{
    const struct tls_gnutls *g = tls_gnutls();
    char welcome = WELCOME;
    ssize_t r = s->shaken ? 0 : g->handshake(s->gnutls);

    if (r == 0) {
        s->shaken = true;
        if (!s->server)
            r = g->record_recv(s->gnutls, &welcome, 1);
        else if (s->in_flight)
            r = g->record_send(s->gnutls, NULL, 0);
        else
            r = g->record_send(s->gnutls, &welcome, 1);
        s->in_flight = s->server && again(r);
    }
    if (again(r) || r == GNUTLS_E_WARNING_ALERT_RECEIVED) {
        *ret_events = g->record_get_direction(s->gnutls) ? POLLOUT : POLLIN;
        return -EAGAIN;
    }
    if (r > 0 && welcome == WELCOME)
        return 0;
    if (r >= 0)
        r = r > 0 ? GNUTLS_E_UNEXPECTED_PACKET : GNUTLS_E_PREMATURE_TERMINATION;
    s->failed = true;
    (void)g->alert_send_appropriate(s->gnutls, (int)r); /* so that they hear why */
    return failed_handshake(s, (int)r, err);
}

/* -errno for what record_send() or record_recv() returned. */
static ssize_t failed(struct tls_session *s, ssize_t r, int code, struct error *err)
{
    const struct tls_gnutls *g = tls_gnutls();

    if (again(r))
        return -EAGAIN;
    s->failed = true;
    switch (r) {
    case 0: return error_set(err, EPIPE, "the other side closed the connection");
    case GNUTLS_E_PREMATURE_TERMINATION: /* no good-bye, or a reset */
    case GNUTLS_E_INVALID_SESSION:
        return error_set(err, ECONNRESET, "the other side cut the connection");
    case GNUTLS_E_PULL_ERROR:
    case GNUTLS_E_PUSH_ERROR:
        if (code == EPIPE || code == 0 || code == EAGAIN)
            return error_set(err, EPIPE, "the other side closed the connection");
        return error_set(err, code, "%s", strerror(code));
    case GNUTLS_E_FATAL_ALERT_RECEIVED:
        return error_set(err, EPROTO, "the other side refused to go on (%s)",
                         g->alert_get_name(g->alert_get(s->gnutls)));
    default: return error_set(err, EPROTO, "TLS: %s", g->strerror((int)r));
    }
}

/* Small parts together, and the beginning of a large one behind them. */
static size_t gather(struct tls_session *s, const struct iovec *iov, unsigned count)
{
    size_t used = 0;

    for (unsigned i = 0; i < count && used < RECORD_BYTES; i++) {
        size_t len = iov[i].iov_len;

        len = len < RECORD_BYTES - used ? len : RECORD_BYTES - used;
        memcpy(s->gather + used, iov[i].iov_base, len);
        used += len;
    }
    return used;
}

ssize_t tls_send(struct tls_session *s, const struct iovec *iov, unsigned count, struct error *err)
{
    const void *data = NULL;
    size_t len = 0;
    ssize_t n;

    pthread_mutex_lock(&s->lock);
    if (!s->in_flight && iov->iov_len >= RECORD_BYTES) {
        data = iov->iov_base;
        len = RECORD_BYTES;
    } else if (!s->in_flight) {
        data = s->gather;
        len = gather(s, iov, count);
    }
    errno = 0;
    n = tls_gnutls()->record_send(s->gnutls, data, len); /* none: the rest of what is in flight */
    if (again(n))
        s->in_flight = s->in_flight ? s->in_flight : len;
    else
        s->in_flight = 0;
    if (n <= 0)
        n = failed(s, n, errno, err);
    pthread_mutex_unlock(&s->lock);
    return n;
}

ssize_t tls_recv(struct tls_session *s, const struct iovec *iov, struct error *err)
{
    ssize_t n;

    pthread_mutex_lock(&s->lock);
    errno = 0;
    n = tls_gnutls()->record_recv(s->gnutls, iov->iov_base, iov->iov_len);
    if (n <= 0)
        n = failed(s, n, errno, err);
    pthread_mutex_unlock(&s->lock);
    return n;
}

bool tls_pending(struct tls_session *s)
{
    bool pending;

    pthread_mutex_lock(&s->lock);
    pending = tls_gnutls()->record_check_pending(s->gnutls) > 0;
    pthread_mutex_unlock(&s->lock);
    return pending;
}
