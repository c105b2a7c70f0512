/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_open: from a url to a connection. A machine's memory is all its secrets: nothing here
 * leaves the host, or lets anybody in, without TLS, unless the operator says so.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel_internal.h"
#include "vmrun/text.h"

#define SCHEME "tcp://"
#define URL_BYTES (NI_MAXHOST + 32)

struct channel_listener {
    int fd;
    char url[URL_BYTES];
};

/* A url in parts. */
struct place {
    char host[NI_MAXHOST], port[8];
};

static int wrong_url(const char *url, const char *why, struct error *err)
{
    return error_set(err, EINVAL, "'%.300s': %s; tcp://HOST:PORT or tcp://[IPV6]:PORT is expected",
                     url, why);
}

static int parse_url(const char *url, struct place *place, struct error *err)
{
    const char *host = url + strlen(SCHEME), *end, *port;
    uint64_t number;

    if (strncmp(url, SCHEME, strlen(SCHEME)) != 0)
        return wrong_url(url, "it does not begin with tcp://", err);
    if (*host == '[') {
        end = strchr(++host, ']');
        if (!end)
            return wrong_url(url, "the [ is never closed", err);
        port = end + 1;
    } else {
        end = port = host + strcspn(host, ":");
        if (strchr(port, ']') || (*port && strchr(port + 1, ':')))
            return wrong_url(url, "an IPv6 address stands between [ and ]", err);
    }
    size_t len = (size_t)(end - host);
    if (len == 0)
        return wrong_url(url, "it names no host", err);
    if (len >= sizeof(place->host))
        return wrong_url(url, "the host's name is too long", err);
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)host[i]) && !strchr("-._:%", host[i]))
            return wrong_url(url, "no host has such a name", err);
    if (*port != ':')
        return wrong_url(url, "it names no port", err);
    if (!isdigit((unsigned char)port[1]) || strspn(port + 1, "0123456789") != strlen(port + 1) ||
        text_parse_uint(port + 1, UINT16_MAX, &number) < 0)
        return wrong_url(url, "the port is to be a number up to 65535", err);
    snprintf(place->host, sizeof(place->host), "%.*s", (int)len, host);
    snprintf(place->port, sizeof(place->port), "%u", (unsigned)number);
    return 0;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)address;

        return ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    const struct sockaddr_in6 *v6 = (const void *)address;

    return address->sa_family == AF_INET6 &&
           (IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ||
            (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && v6->sin6_addr.s6_addr[12] == IN_LOOPBACKNET));
}

/* The url's addresses, all of which may be spoken to. The caller frees them. */
static int look_up(const struct channel_security *security, const char *url,
                   struct addrinfo **ret_list, struct error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list;
    struct place place;
    int r = parse_url(url, &place, err);

    if (r == 0 && (security->psk || security->cert || security->key || security->ca))
        r = error_set(err, ENOTSUP, "%s: TLS is not built in", url);
    if (r < 0)
        return r;
    r = getaddrinfo(place.host, place.port, &hints, &list);
    if (r != 0)
        return error_set(err, EHOSTUNREACH, "%s: %s", url,
                         r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
    for (const struct addrinfo *a = list; a && !security->insecure; a = a->ai_next)
        if (!is_loopback(a->ai_addr)) {
            freeaddrinfo(list);
            return error_set(err, EPERM,
                             "%s is not this host itself, and the machine's memory would travel "
                             "readable by anybody: give --tls-psk, or --tls-cert, --tls-key and "
                             "--tls-ca; or --insecure where the network is trusted",
                             url);
        }
    *ret_list = list;
    return 0;
}

static void name_address(const struct sockaddr *address, socklen_t len, char *url)
{
    char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";

    (void)getnameinfo(address, len, host, sizeof(host), port, sizeof(port),
                      NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(url, URL_BYTES, strchr(host, ':') ? SCHEME "[%s]:%s" : SCHEME "%s:%s", host, port);
}

static void set_option(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof(value));
}

/* A message goes at once, and a host that lost its power is noticed by who only waits. */
static void set_options(int fd)
{
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 5);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 2);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 5);
}

static int listen_on(const struct addrinfo *address, int *ret_fd)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);

    if (fd < 0)
        return -errno;
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (bind(fd, address->ai_addr, address->ai_addrlen) < 0 || listen(fd, SOMAXCONN) < 0) {
        int r = -errno;

        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

int channel_listen(const struct channel_security *security, const char *url,
                   struct channel_listener **ret_listener, struct error *err)
{
    struct channel_listener *listener = NULL;
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    struct addrinfo *list;
    int r = look_up(security, url, &list, err);

    if (r < 0)
        return r;
    listener = calloc(1, sizeof(*listener));
    if (!listener) {
        r = error_set(err, ENOMEM, "%s: out of memory", url);
        goto fail;
    }
    listener->fd = -1;
    r = -EADDRNOTAVAIL;
    for (const struct addrinfo *a = list; a && listener->fd < 0; a = a->ai_next)
        r = listen_on(a, &listener->fd);
    if (r < 0) {
        r = error_errno(err, -r, "%s", url);
        goto fail;
    }
    if (getsockname(listener->fd, (struct sockaddr *)&bound, &len) < 0) {
        r = error_errno(err, errno, "%s", url);
        goto fail;
    }
    name_address((struct sockaddr *)&bound, len, listener->url);
    freeaddrinfo(list);
    *ret_listener = listener;
    return 0;
fail:
    freeaddrinfo(list);
    channel_listener_destroy(listener);
    return r;
}

const char *channel_listener_url(const struct channel_listener *listener)
{
    return listener->url;
}

int channel_listener_fd(const struct channel_listener *listener)
{
    return listener->fd;
}

int channel_accept(struct channel_listener *listener, int timeout_ms, struct channel **ret_channel,
                   struct error *err)
{
    uint64_t deadline_ns = channel_deadline_ns(timeout_ms);
    struct sockaddr_storage from;
    char peer[URL_BYTES];

    for (;;) {
        socklen_t len = sizeof(from);
        int fd =
            accept4(listener->fd, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            set_options(fd);
            name_address((struct sockaddr *)&from, len, peer);
            int r = channel_create(fd, peer, ret_channel, err);
            if (r < 0)
                close(fd);
            return r;
        }
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            return error_errno(err, errno, "%s", listener->url);
        struct pollfd waiting = {.fd = listener->fd, .events = POLLIN};
        int n = channel_poll(&waiting, 1, deadline_ns);
        if (n <= 0)
            return error_errno(err, n < 0 ? -n : ETIMEDOUT, "%s", listener->url);
    }
}

void channel_listener_destroy(struct channel_listener *listener)
{
    if (!listener)
        return;
    if (listener->fd >= 0)
        close(listener->fd);
    free(listener);
}

static int connect_to(const struct addrinfo *address, uint64_t deadline_ns, int *ret_fd)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
    struct pollfd waiting = {.fd = fd, .events = POLLOUT};
    int code = 0, n;
    socklen_t len = sizeof(code);

    if (fd < 0)
        return -errno;
    set_options(fd);
    if (connect(fd, address->ai_addr, address->ai_addrlen) < 0)
        code = errno;
    if (code == EINPROGRESS) {
        n = channel_poll(&waiting, 1, deadline_ns);
        if (n <= 0)
            code = n < 0 ? -n : ETIMEDOUT;
        else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0)
            code = errno;
    }
    if (code) {
        close(fd);
        return -code;
    }
    *ret_fd = fd;
    return 0;
}

/* An address that swallows everything leaves the next ones their share of the time. */
static uint64_t share_of(uint64_t deadline_ns, const struct addrinfo *list)
{
    uint64_t now = channel_now_ns();
    unsigned count = 0;

    if (deadline_ns == UINT64_MAX || deadline_ns <= now)
        return deadline_ns;
    for (; list; list = list->ai_next)
        count++;
    return now + (deadline_ns - now) / count;
}

int channel_connect(const struct channel_security *security, const char *url, int timeout_ms,
                    struct channel **ret_channel, struct error *err)
{
    uint64_t deadline_ns = channel_deadline_ns(timeout_ms);
    struct addrinfo *list;
    int fd = -1, r = look_up(security, url, &list, err);

    if (r < 0)
        return r;
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
        r = connect_to(a, share_of(deadline_ns, a), &fd);
    freeaddrinfo(list);
    if (fd < 0)
        return error_errno(err, -r, "%s", url);
    r = channel_create(fd, url, ret_channel, err);
    if (r < 0)
        close(fd);
    return r;
}
