/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_TLS_INTERNAL_H
#define MIGRATION_TLS_INTERNAL_H

/* What tls.c, the sessions, and tls_credentials.c, the files, share. */
#include <gnutls/gnutls.h>
#include <stdatomic.h>

#include "tls.h"

#define TLS_KEY_BYTES_LEAST 16
#define TLS_KEY_BYTES_MOST 64
#define TLS_IDENTITY_BYTES 128

struct tls {
    atomic_uint users;
    gnutls_certificate_credentials_t certificates; /* or NULL: */
    gnutls_psk_client_credentials_t psk_client;
    gnutls_psk_server_credentials_t psk_server;
    char identity[TLS_IDENTITY_BYTES];
    unsigned char key[TLS_KEY_BYTES_MOST];
    unsigned key_bytes;
};

/* The functions of libgnutls that are used: gnutls_NAME() is tls_gnutls()->NAME(). */
#define TLS_FUNCTIONS(X) \
    X(alert_get) \
    X(alert_get_name) \
    X(alert_send_appropriate) \
    X(bye) \
    X(certificate_allocate_credentials) \
    X(certificate_free_credentials) \
    X(certificate_send_x509_rdn_sequence) \
    X(certificate_server_set_request) \
    X(certificate_set_x509_key_mem2) \
    X(certificate_set_x509_trust_mem) \
    X(certificate_verification_status_print) \
    X(check_version) \
    X(credentials_set) \
    X(deinit) \
    X(handshake) \
    X(init) \
    X(priority_set_direct) \
    X(psk_allocate_client_credentials) \
    X(psk_allocate_server_credentials) \
    X(psk_free_client_credentials) \
    X(psk_free_server_credentials) \
    X(psk_set_client_credentials) \
    X(psk_set_server_credentials_function) \
    X(record_check_pending) \
    X(record_get_direction) \
    X(record_recv) \
    X(record_send) \
    X(session_get_ptr) \
    X(session_get_verify_cert_status) \
    X(session_set_ptr) \
    X(session_set_verify_cert2) \
    X(strerror) \
    X(transport_set_int2)

struct tls_gnutls {
#define TLS_FIELD(name) __typeof__(&gnutls_##name) name;
    TLS_FUNCTIONS(TLS_FIELD)
#undef TLS_FIELD
};

/* Opens it the first time. Errors: -ENOTSUP. */
int tls_open_gnutls(struct error *err);
/* After that. */
const struct tls_gnutls *tls_gnutls(void);

#endif
