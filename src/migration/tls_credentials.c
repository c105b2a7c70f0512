/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_credentials: files that prove who we are, and the library that reads them.
 *
 * A file is read once, through one descriptor, so what was checked is what is used.
 */
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tls_internal.h"

#define LIBRARY "libgnutls.so.30"
#define OLDEST "3.7.0"
#define MOST_FILE_BYTES ((size_t)1 << 20)
#define OTHERS_MODE 0027 /* a group may be given a key to read; that takes a chmod on purpose */

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static struct tls_gnutls gnutls; /* constant once it is open */
static bool opened;              /* opening */

static bool load_gnutls(void *library)
{
    bool complete = true;
    void *symbol;

#define LOAD(name) \
    symbol = dlsym(library, "gnutls_" #name); \
    memcpy(&gnutls.name, &symbol, sizeof(symbol)); \
    complete = complete && symbol;
    TLS_FUNCTIONS(LOAD)
#undef LOAD
    return complete && gnutls.check_version(OLDEST);
}

int tls_open_gnutls(struct error *err)
{
    int r = 0;

    pthread_mutex_lock(&opening);
    if (!opened) {
        /* It has state of its own in each thread: it is never closed. */
        void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);

        if (!library)
            r = error_set(err, ENOTSUP,
                          "TLS needs " LIBRARY ", which is not installed: install the package "
                          "libgnutls30 (Debian) or gnutls (others)");
        else if (!load_gnutls(library))
            r = error_set(err, ENOTSUP, LIBRARY " is too old: TLS needs GnuTLS " OLDEST);
        opened = r == 0;
        if (library && !opened)
            dlclose(library);
    }
    pthread_mutex_unlock(&opening);
    return r;
}

const struct tls_gnutls *tls_gnutls(void)
{
    return &gnutls;
}

static int check_secret(int fd, const char *path, struct error *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_errno(err, errno, "%s", path);
    if (st.st_mode & OTHERS_MODE)
        return error_set(err, EPERM, "%s: its mode %04o gives a secret away: chmod 600 it", path,
                         st.st_mode & 07777);
    return 0;
}

/* The whole file, with a NUL behind it. The caller wipes it with drop(). */
static int read_file(const char *path, bool secret, gnutls_datum_t *ret, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    unsigned char *data = NULL;
    size_t len = 0;
    ssize_t n = 0;
    int r = fd < 0 ? error_errno(err, errno, "%s", path) : 0;

    if (r == 0 && secret)
        r = check_secret(fd, path, err);
    if (r == 0) {
        data = malloc(MOST_FILE_BYTES + 1);
        if (!data)
            r = error_set(err, ENOMEM, "%s: out of memory", path);
    }
    while (r == 0 && len <= MOST_FILE_BYTES) {
        n = read(fd, data + len, MOST_FILE_BYTES + 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    if (r == 0 && n < 0)
        r = error_errno(err, errno, "%s", path);
    if (r == 0 && len > MOST_FILE_BYTES)
        r = error_set(err, EFBIG, "%s: over 1 MiB, no such file", path);
    if (fd >= 0)
        close(fd);
    if (r < 0 || !data) {
        free(data);
        return r;
    }
    data[len] = '\0';
    *ret = (gnutls_datum_t){.data = data, .size = (unsigned)len};
    return 0;
}

static void drop(gnutls_datum_t *file)
{
    if (file->data)
        explicit_bzero(file->data, file->size);
    free(file->data);
    file->data = NULL;
}

static int digit(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

static int wrong_psk(const char *path, const char *why, struct error *err)
{
    return error_set(err, EINVAL,
                     "%s: %s; one line is expected, IDENTITY:KEY, the key in hexadecimal: "
                     "(umask 077; echo \"vmrun:$(openssl rand -hex 32)\" >FILE)",
                     path, why);
}

/* "identity:hex", with at most one newline behind it. */
static int parse_psk(struct tls *tls, const char *path, const char *text, size_t len,
                     struct error *err)
{
    const char *colon = strchr(text, ':');
    size_t name = colon ? (size_t)(colon - text) : 0, digits;

    if (strlen(text) != len || name == 0)
        return wrong_psk(path, "no key", err);
    if (name >= sizeof(tls->identity))
        return wrong_psk(path, "its identity is too long", err);
    for (size_t i = 0; i < name; i++)
        if (!isgraph((unsigned char)text[i]))
            return wrong_psk(path, "its identity has a character that is none", err);
    memcpy(tls->identity, text, name);
    text = colon + 1;
    digits = strspn(text, "0123456789abcdefABCDEF");
    if (digits % 2 || (text[digits] && strcmp(text + digits, "\n") != 0))
        return wrong_psk(path, "its key is not in pairs of hexadecimal digits", err);
    if (digits / 2 < TLS_KEY_BYTES_LEAST || digits / 2 > TLS_KEY_BYTES_MOST)
        return wrong_psk(path, "its key has not 128 to 512 bits", err);
    for (size_t i = 0; i < digits; i += 2)
        tls->key[i / 2] = (unsigned char)(digit(text[i]) << 4 | digit(text[i + 1]));
    tls->key_bytes = (unsigned)(digits / 2);
    return 0;
}

/* Asked by the library for the key of whoever says to be `name`. It frees what it is given. */
static int find_key(gnutls_session_t session, const char *name, gnutls_datum_t *key)
{
    const struct tls *tls = gnutls.session_get_ptr(session);

    if (strcmp(name, tls->identity) != 0)
        return -1;
    key->data = malloc(tls->key_bytes); /* what gnutls_malloc() is, unless someone changes it */
    if (!key->data)
        return -1;
    memcpy(key->data, tls->key, tls->key_bytes);
    key->size = tls->key_bytes;
    return 0;
}

static int use_psk(struct tls *tls, const char *path, struct error *err)
{
    gnutls_datum_t file = {0}, key = {.data = tls->key};
    int r = read_file(path, true, &file, err);

    if (r < 0 || !file.data)
        return r;
    r = parse_psk(tls, path, (const char *)file.data, file.size, err);
    drop(&file);
    if (r < 0)
        return r;
    key.size = tls->key_bytes;
    if (gnutls.psk_allocate_client_credentials(&tls->psk_client) < 0 ||
        gnutls.psk_allocate_server_credentials(&tls->psk_server) < 0 ||
        gnutls.psk_set_client_credentials(tls->psk_client, tls->identity, &key,
                                          GNUTLS_PSK_KEY_RAW) < 0)
        return error_set(err, ENOMEM, "%s: out of memory", path);
    gnutls.psk_set_server_credentials_function(tls->psk_server, find_key);
    return 0;
}

static int use_certificates(struct tls *tls, const struct channel_security *security,
                            struct error *err)
{
    gnutls_datum_t cert = {0}, key = {0}, ca = {0};
    int n, r = read_file(security->cert, false, &cert, err);

    if (r == 0)
        r = read_file(security->key, true, &key, err);
    if (r == 0)
        r = read_file(security->ca, false, &ca, err);
    if (r < 0)
        goto out;
    if (gnutls.certificate_allocate_credentials(&tls->certificates) < 0) {
        r = error_set(err, ENOMEM, "%s: out of memory", security->cert);
        goto out;
    }
    n = gnutls.certificate_set_x509_key_mem2(tls->certificates, &cert, &key, GNUTLS_X509_FMT_PEM,
                                             NULL, 0);
    if (n < 0) {
        r = error_set(err, EINVAL, "%s with %s: %s", security->cert, security->key,
                      gnutls.strerror(n));
        goto out;
    }
    n = gnutls.certificate_set_x509_trust_mem(tls->certificates, &ca, GNUTLS_X509_FMT_PEM);
    if (n <= 0)
        r = error_set(err, EINVAL, "%s: %s", security->ca,
                      n < 0 ? gnutls.strerror(n) : "no certificate in it");
out:
    drop(&cert);
    drop(&key);
    drop(&ca);
    return r;
}

static int check_choice(const struct channel_security *security, struct error *err)
{
    unsigned files = !!security->cert + !!security->key + !!security->ca;

    if (security->psk && files)
        return error_set(err, EINVAL, "--tls-psk and --tls-cert are two ways: give one");
    if (files % 3)
        return error_set(err, EINVAL,
                         "%s is missing: --tls-cert, --tls-key and --tls-ca "
                         "belong together",
                         !security->cert  ? "--tls-cert"
                         : !security->key ? "--tls-key"
                                          : "--tls-ca");
    return 0;
}

int tls_create(const struct channel_security *security, struct tls **ret_tls, struct error *err)
{
    struct tls *tls;
    int r = check_choice(security, err);

    if (r == 0)
        r = tls_open_gnutls(err);
    if (r < 0)
        return r;
    tls = calloc(1, sizeof(*tls));
    if (!tls)
        return error_set(err, ENOMEM, "TLS: out of memory");
    atomic_init(&tls->users, 1);
    r = security->psk ? use_psk(tls, security->psk, err) : use_certificates(tls, security, err);
    if (r < 0) {
        tls_destroy(tls);
        return r;
    }
    *ret_tls = tls;
    return 0;
}

void tls_destroy(struct tls *tls)
{
    if (!tls || atomic_fetch_sub(&tls->users, 1) > 1)
        return;
    if (tls->certificates)
        gnutls.certificate_free_credentials(tls->certificates);
    if (tls->psk_client)
        gnutls.psk_free_client_credentials(tls->psk_client);
    if (tls->psk_server)
        gnutls.psk_free_server_credentials(tls->psk_server);
    explicit_bzero(tls, sizeof(*tls));
    free(tls);
}
