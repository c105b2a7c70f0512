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
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel_internal.h"
#include "vmrun/text.h"

#define SCHEME "tcp://"
#define URL_BYTES (NI_MAXHOST + 32)
#define HANDSHAKE_MS 10000
#define MOST_PENDING 16

/* A stranger who has not shown yet that he is none. */
struct pending {
    int fd; /* -1: nobody */
    struct tls_session *session;
    uint64_t deadline_ns;
    char peer[URL_BYTES];
};

/* Who is silent must not keep others waiting: handshakes go on side by side. */
struct channel_listener {
    int fd, epoll;
    struct tls *tls; /* or NULL */
    struct pending pending[MOST_PENDING];
    char url[URL_BYTES];
};

/* A url in parts. */
struct place {
    char host[NI_MAXHOST], port[8];
    bool literal; /* an IPv6 address in brackets */
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
    place->literal = *end == ']';
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

static bool wants_tls(const struct channel_security *security)
{
    return security->cert || security->key || security->ca || security->psk;
}

/* The place's addresses, all of which may be spoken to. The caller frees them. */
static int look_up(const struct channel_security *security, const char *url,
                   const struct place *place, struct addrinfo **ret_list, struct error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list;
    bool anybody = security->insecure || wants_tls(security);
    int r;

    if (place->literal) {
        hints.ai_family = AF_INET6;
        hints.ai_flags |= AI_NUMERICHOST;
    }
    r = getaddrinfo(place->host, place->port, &hints, &list);
    if (r != 0 && place->literal)
        return wrong_url(url, "no IPv6 address stands between [ and ]", err);

    if (r != 0)
        return error_set(err, EHOSTUNREACH, "%s: %s", url,
                         r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
    for (const struct addrinfo *a = list; a && !anybody; a = a->ai_next)
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

/* What everything begins with: the url, the files, the addresses. *ret_tls: NULL without. */
static int begin(const struct channel_security *security, const char *url, struct place *place,
                 struct tls **ret_tls, struct addrinfo **ret_list, struct error *err)
{
    struct tls *tls = NULL;
    int r = parse_url(url, place, err);

    if (r == 0 && security->insecure && wants_tls(security))
        r = error_set(err, EINVAL, "--insecure says no TLS, and the --tls options say TLS");
    if (r == 0 && wants_tls(security))
        r = tls_create(security, &tls, err);
    if (r == 0)
        r = look_up(security, url, place, ret_list, err);
    if (r < 0) {
        tls_destroy(tls);
        return r;
    }
    *ret_tls = tls;
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

static int watch(const struct channel_listener *listener, int how, int fd, short events)
{
    struct epoll_event event = {.events = (uint32_t)events};

    return epoll_ctl(listener->epoll, how, fd, &event);
}

/* Sets a listener up that has its url's addresses. */
static int open_listener(struct channel_listener *listener, const struct addrinfo *list,
                         const char *url, struct error *err)
{
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    int r = -EADDRNOTAVAIL;

    for (const struct addrinfo *a = list; a && listener->fd < 0; a = a->ai_next)
        r = listen_on(a, &listener->fd);
    if (r < 0)
        return error_errno(err, -r, "%s", url);
    listener->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (listener->epoll < 0 || watch(listener, EPOLL_CTL_ADD, listener->fd, POLLIN) < 0 ||
        getsockname(listener->fd, (struct sockaddr *)&bound, &len) < 0)
        return error_errno(err, errno, "%s", url);
    name_address((struct sockaddr *)&bound, len, listener->url);
    return 0;
}

int channel_listen(const struct channel_security *security, const char *url,
                   struct channel_listener **ret_listener, struct error *err)
{
    struct channel_listener *listener = calloc(1, sizeof(*listener));
    struct addrinfo *list = NULL;
    struct place place = {.literal = false};
    int r;

    if (!listener)
        return error_set(err, ENOMEM, "%s: out of memory", url);
    listener->fd = listener->epoll = -1;
    for (unsigned i = 0; i < MOST_PENDING; i++)
        listener->pending[i].fd = -1;
    r = begin(security, url, &place, &listener->tls, &list, err);
    if (r == 0)
        r = open_listener(listener, list, url, err);
    if (list)
        freeaddrinfo(list);
    if (r < 0) {
        channel_listener_destroy(listener);
        return r;
    }
    *ret_listener = listener;
    return 0;
}

const char *channel_listener_url(const struct channel_listener *listener)
{
    return listener->url;
}

int channel_listener_fd(const struct channel_listener *listener)
{
    return listener->epoll;
}

static void drop(struct pending *p)
{
    tls_session_destroy(p->session);
    if (p->fd >= 0)
        close(p->fd); /* and so out of the epoll */
    p->session = NULL;
    p->fd = -1;
}

/* A slot for a new one: a free one, or that of the one who has had his time for the longest. */
static struct pending *find_slot(struct channel_listener *listener)
{
    struct pending *oldest = &listener->pending[0];

    for (unsigned i = 0; i < MOST_PENDING; i++) {
        struct pending *p = &listener->pending[i];

        if (p->fd < 0)
            return p;
        if (p->deadline_ns < oldest->deadline_ns)
            oldest = p;
    }
    drop(oldest);
    return oldest;
}

static int begin_handshake(struct channel_listener *listener, int fd, const char *peer,
                           struct error *err)
{
    struct pending *p = find_slot(listener);
    int r = tls_session_create(listener->tls, fd, NULL, &p->session, err);

    if (r < 0)
        return r;
    if (watch(listener, EPOLL_CTL_ADD, fd, POLLIN) < 0) {
        r = error_errno(err, errno, "%s", peer);
        drop(p);
        return r;
    }
    p->fd = fd;
    p->deadline_ns = channel_deadline_ns(HANDSHAKE_MS);
    snprintf(p->peer, sizeof(p->peer), "%s", peer);
    return 0;
}

/* Whoever waits to be accepted: 1, a channel; 0, nobody, or somebody whose handshake begins. */
static int take_next(struct channel_listener *listener, struct channel **ret_channel,
                     struct error *err)
{
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    char peer[URL_BYTES];
    int r, fd = accept4(listener->fd, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS))
        return error_errno(err, errno, "%s", listener->url);
    if (fd < 0)
        return 0; /* nobody, or he is gone again */
    set_options(fd);
    name_address((struct sockaddr *)&from, len, peer);
    if (listener->tls)
        r = begin_handshake(listener, fd, peer, err);
    else
        r = channel_create(fd, NULL, peer, ret_channel, err);
    if (r < 0)
        close(fd);
    return r < 0 ? r : !listener->tls;
}

/* A step with one: 1, it is a channel; 0, not yet. On an error he is sent away. */
static int go_on(struct channel_listener *listener, struct pending *p, struct channel **ret_channel,
                 struct error *err)
{
    short events = POLLIN;
    int r = tls_handshake(p->session, &events, err);

    if (r == -EAGAIN && channel_now_ns() < p->deadline_ns)
        return watch(listener, EPOLL_CTL_MOD, p->fd, events) < 0
                   ? error_errno(err, errno, "%s", p->peer)
                   : 0;
    if (r == -EAGAIN)
        r = error_set(err, EPROTO, "no TLS handshake within %d s", HANDSHAKE_MS / 1000);
    if (r == 0) {
        (void)epoll_ctl(listener->epoll, EPOLL_CTL_DEL, p->fd, NULL);
        r = channel_create(p->fd, p->session, p->peer, ret_channel, err);
    } else {
        error_prefix(err, "%s", p->peer);
    }
    if (r == 0) {
        p->fd = -1;
        p->session = NULL;
    }
    drop(p);
    return r < 0 ? r : 1;
}

/* Everybody who is there, once. Whose time is over first, *ret_wake_ns is that time. */
static int serve(struct channel_listener *listener, struct channel **ret_channel,
                 uint64_t *ret_wake_ns, struct error *err)
{
    int r = take_next(listener, ret_channel, err);

    *ret_wake_ns = UINT64_MAX;
    for (unsigned i = 0; i < MOST_PENDING && r == 0; i++) {
        struct pending *p = &listener->pending[i];

        if (p->fd >= 0)
            r = go_on(listener, p, ret_channel, err);
        if (p->fd >= 0 && p->deadline_ns < *ret_wake_ns)
            *ret_wake_ns = p->deadline_ns;
    }
    return r;
}

int channel_accept(struct channel_listener *listener, int timeout_ms, struct channel **ret_channel,
                   struct error *err)
{
    uint64_t deadline_ns = channel_deadline_ns(timeout_ms), wake_ns;

    for (;;) {
        struct pollfd waiting = {.fd = listener->epoll, .events = POLLIN};
        int r = serve(listener, ret_channel, &wake_ns, err);

        if (r != 0)
            return r < 0 ? r : 0;
        r = channel_poll(&waiting, 1, wake_ns < deadline_ns ? wake_ns : deadline_ns);
        if (r < 0)
            return error_errno(err, -r, "%s", listener->url);
        if (r == 0 && channel_now_ns() >= deadline_ns)
            return error_set(err, ETIMEDOUT, "%s: nobody connected", listener->url);
    }
}

void channel_listener_destroy(struct channel_listener *listener)
{
    if (!listener)
        return;
    for (unsigned i = 0; i < MOST_PENDING; i++)
        drop(&listener->pending[i]);
    if (listener->epoll >= 0)
        close(listener->epoll);
    if (listener->fd >= 0)
        close(listener->fd);
    tls_destroy(listener->tls);
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

static int shake_hands(struct tls_session *session, int fd, uint64_t deadline_ns, struct error *err)
{
    struct pollfd waiting = {.fd = fd};

    if (deadline_ns == UINT64_MAX) /* connected, but whoever it is may never say a word */
        deadline_ns = channel_deadline_ns(HANDSHAKE_MS);
    for (;;) {
        int r = tls_handshake(session, &waiting.events, err);

        if (r != -EAGAIN)
            return r;
        r = channel_poll(&waiting, 1, deadline_ns);
        if (r < 0)
            return error_errno(err, -r, "TLS");
        if (r == 0)
            return error_set(err, ETIMEDOUT, "no answer in TLS: does the other side use it?");
    }
}

int channel_connect(const struct channel_security *security, const char *url, int timeout_ms,
                    struct channel **ret_channel, struct error *err)
{
    uint64_t deadline_ns = channel_deadline_ns(timeout_ms);
    struct tls_session *session = NULL;
    struct tls *tls = NULL;
    struct addrinfo *list = NULL;
    struct place place = {.literal = false};
    int fd = -1, r = begin(security, url, &place, &tls, &list, err);

    if (r != 0)
        return r;
    if (strcmp(place.port, "0") == 0) {
        freeaddrinfo(list);
        tls_destroy(tls);
        return wrong_url(url, "port 0 is nowhere to connect to", err);
    }
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
        r = connect_to(a, share_of(deadline_ns, a), &fd);
    freeaddrinfo(list);
    if (fd < 0)
        r = error_errno(err, -r, "%s", url);
    else if (tls)
        r = tls_session_create(tls, fd, place.host, &session, err);
    if (session) {
        r = shake_hands(session, fd, deadline_ns, err);
        if (r < 0)
            error_prefix(err, "%s", url);
    }
    tls_destroy(tls); /* the session has it */
    if (r == 0)
        r = channel_create(fd, session, url, ret_channel, err);
    if (r == 0)
        return 0;
    tls_session_destroy(session);
    if (fd >= 0)
        close(fd);
    return r;
}
