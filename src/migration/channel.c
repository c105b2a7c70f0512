/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel: bytes from memory to the other side's memory.
 *
 * The socket never blocks; who has to wait polls it together with an eventfd, so that an interrupt
 * reaches every wait, the one for the limit included.
 */
#include "channel.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "channel_internal.h"

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define WINDOW 64                     /* parts in one system call */
#define LIMIT_NAP_NS (10 * NS_PER_MS) /* a limit that changes is heard of by then */
#define LOOK_MS 1000                  /* whether what was sent is being taken */

/* What is left of the caller's parts. */
struct cursor {
    const struct iovec *iov;
    unsigned count;
    size_t at; /* in the first part */
};

uint64_t channel_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t channel_deadline_ns(int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : channel_now_ns() + (uint64_t)timeout_ms * NS_PER_MS;
}

int channel_poll(struct pollfd *fds, unsigned count, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now = channel_now_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
        struct timespec wait = {.tv_sec = (time_t)(left / NS_PER_S),
                                .tv_nsec = (long)(left % NS_PER_S)};
        int n = ppoll(fds, count, deadline_ns == UINT64_MAX ? NULL : &wait, NULL);

        if (n >= 0)
            return n;
        if (errno != EINTR)
            return -errno;
    }
}

static unsigned cursor_window(const struct cursor *c, struct iovec *window, size_t most)
{
    unsigned used = 0;
    size_t at = c->at;

    for (unsigned i = 0; i < c->count && used < WINDOW && most > 0; i++) {
        size_t len = c->iov[i].iov_len - at;

        len = len < most ? len : most;
        if (len > 0)
            window[used++] =
                (struct iovec){.iov_base = (uint8_t *)c->iov[i].iov_base + at, .iov_len = len};
        most -= len;
        at = 0;
    }
    return used;
}

static void cursor_advance(struct cursor *c, size_t bytes)
{
    while (c->count > 0 && bytes >= c->iov->iov_len - c->at) {
        bytes -= c->iov->iov_len - c->at;
        c->iov++;
        c->count--;
        c->at = 0;
    }
    c->at += bytes;
}

static size_t window_bytes(const struct iovec *window, unsigned count)
{
    size_t bytes = 0;

    for (unsigned i = 0; i < count; i++)
        bytes += window[i].iov_len;
    return bytes;
}

static int failed(const struct channel *channel, int code, struct error *err)
{
    switch (code) {
    case EPIPE:
        return error_set(err, code, "%s: the other side closed the connection", channel->peer);
    case ECONNRESET:
        return error_set(err, code, "%s: the other side cut the connection", channel->peer);
    case ECANCELED: return error_set(err, code, "%s: interrupted", channel->peer);
    default: return error_errno(err, code, "%s", channel->peer);
    }
}

/* Until the socket is ready, or deadline_ns: whether it is, or -ECANCELED. */
static int wait_for(struct channel *channel, short events, uint64_t deadline_ns, struct error *err)
{
    struct pollfd fds[2] = {{.fd = channel->fd, .events = events},
                            {.fd = channel->wake, .events = POLLIN}};
    int n = channel_poll(fds, 2, deadline_ns);

    if (n < 0)
        return failed(channel, -n, err);
    if (atomic_load(&channel->interrupted))
        return failed(channel, ECANCELED, err);
    return n > 0;
}

/* A limit's wait: the socket may be what it will. */
static int nap(struct channel *channel, uint64_t ns, struct error *err)
{
    struct pollfd wake = {.fd = channel->wake, .events = POLLIN};
    int n = channel_poll(&wake, 1, channel_now_ns() + (ns < LIMIT_NAP_NS ? ns : LIMIT_NAP_NS));

    return n < 0 ? failed(channel, -n, err) : 0;
}

/* Move what can be moved at once: how much, or -EAGAIN, or an error that is told in words. */
static ssize_t move(struct channel *channel, bool out, struct iovec *window, unsigned count,
                    struct error *err)
{
    struct msghdr msg = {.msg_iov = window, .msg_iovlen = count};
    ssize_t n;

    if (channel->tls) {
        n = out ? tls_send(channel->tls, window, count, err) : tls_recv(channel->tls, window, err);
        return n < 0 && n != -EAGAIN ? error_prefix(err, "%s", channel->peer) : n;
    }
    n = out ? sendmsg(channel->fd, &msg, MSG_NOSIGNAL) : recvmsg(channel->fd, &msg, 0);

    if (n > 0)
        return n;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    return failed(channel, n == 0 ? EPIPE : errno, err);
}

/*
 * Until the socket is ready, or nothing moved for that long: as wait_for(). A socket can be written
 * to again only when a third of what is in it, often megabytes, has been taken, which a slow link
 * or a busy host may need longer for: it moves as long as the other side acknowledges anything.
 */
static int wait_while_moving(struct channel *channel, bool out, int timeout_ms,
                             uint64_t *deadline_ns, struct error *err)
{
    uint64_t left = channel_unsent_bytes(channel), until_ns = atomic_load(&channel->until_ns);

    for (;;) {
        uint64_t look_ns = channel_deadline_ns(LOOK_MS), before = left;
        uint64_t end_ns = *deadline_ns < until_ns ? *deadline_ns : until_ns;
        bool last = !out || end_ns < look_ns;
        int n = wait_for(channel, out ? POLLOUT : POLLIN, last ? end_ns : look_ns, err);

        if (n != 0)
            return n;
        left = channel_unsent_bytes(channel);
        if (out && left < before && channel_now_ns() < until_ns)
            *deadline_ns = channel_deadline_ns(timeout_ms);
        else if (last)
            return 0;
    }
}

/* As much of the window as goes in one step, waiting for it; or an error. */
static ssize_t step(struct channel *channel, bool out, struct iovec *window, unsigned count,
                    struct error *err)
{
    uint64_t deadline_ns = 0;
    int timeout_ms = atomic_load(&channel->timeout_ms);

    for (;;) {
        if (atomic_load(&channel->interrupted))
            return failed(channel, ECANCELED, err);
        ssize_t n = move(channel, out, window, count, err);
        if (n != -EAGAIN)
            return n;
        if (deadline_ns == 0)
            deadline_ns = channel_deadline_ns(timeout_ms);
        n = wait_while_moving(channel, out, timeout_ms, &deadline_ns, err);
        if (n < 0)
            return n;
        if (n == 0 && channel_now_ns() >= atomic_load(&channel->until_ns))
            return error_set(err, ETIMEDOUT, "%s: it did not all %s in time", channel->peer,
                             out ? "go" : "come");
        if (n == 0)
            return error_set(err, ETIMEDOUT, "%s: nothing %s for %g s", channel->peer,
                             out ? "was taken" : "came", timeout_ms / 1e3);
    }
}

/* Send what the limit allows of it, or wait for the limit: how much, or an error. */
static ssize_t send_slice(struct channel *channel, const struct cursor *cursor, size_t *allowed,
                          struct error *err)
{
    struct channel_limit *limit = atomic_load(&channel->limit);
    struct iovec window[WINDOW];
    uint64_t wait_ns = 0;

    if (*allowed == 0 && limit) {
        unsigned count = cursor_window(cursor, window, SIZE_MAX);

        *allowed =
            channel_limit_take(limit, channel_now_ns(), window_bytes(window, count), &wait_ns);
    }
    if (*allowed == 0 && limit)
        return atomic_load(&channel->interrupted) ? failed(channel, ECANCELED, err)
                                                  : nap(channel, wait_ns, err);
    unsigned count = cursor_window(cursor, window, limit ? *allowed : SIZE_MAX);
    ssize_t n = step(channel, true, window, count, err);
    if (n > 0 && limit)
        *allowed -= (size_t)n;
    return n;
}

static void skip_empty(struct cursor *cursor)
{
    cursor_advance(cursor, 0);
}

int channel_send(struct channel *channel, const struct iovec *iov, unsigned count,
                 struct error *err)
{
    struct cursor cursor = {.iov = iov, .count = count};
    size_t allowed = 0;
    bool moved = false;

    if (channel->send_failed)
        return failed(channel, channel->send_failed, err);
    for (skip_empty(&cursor); cursor.count > 0;) {
        ssize_t n = send_slice(channel, &cursor, &allowed, err);

        if (n < 0) {
            if (moved)
                channel->send_failed = (int)-n;
            return (int)n;
        }
        moved = moved || n > 0;
        atomic_fetch_add(&channel->sent, (uint64_t)n);
        cursor_advance(&cursor, (size_t)n);
    }
    return 0;
}

int channel_recv(struct channel *channel, const struct iovec *iov, unsigned count,
                 struct error *err)
{
    struct cursor cursor = {.iov = iov, .count = count};
    struct iovec window[WINDOW];
    bool moved = false;

    if (channel->recv_failed)
        return failed(channel, channel->recv_failed, err);
    for (skip_empty(&cursor); cursor.count > 0;) {
        ssize_t n = step(channel, false, window, cursor_window(&cursor, window, SIZE_MAX), err);

        if (n < 0) {
            if (moved)
                channel->recv_failed = (int)-n;
            return (int)n;
        }
        moved = true;
        atomic_fetch_add(&channel->received, (uint64_t)n);
        cursor_advance(&cursor, (size_t)n);
    }
    return 0;
}

bool channel_readable(struct channel *channel, int timeout_ms)
{
    struct error ignored;

    if (channel->tls && tls_pending(channel->tls))
        return true;
    return wait_for(channel, POLLIN, channel_deadline_ns(timeout_ms), &ignored) != 0;
}

void channel_interrupt(struct channel *channel)
{
    atomic_store(&channel->interrupted, true);
    (void)eventfd_write(channel->wake, 1); /* full means that it is readable */
}

void channel_end_interrupt(struct channel *channel)
{
    eventfd_t count;

    atomic_store(&channel->interrupted, false);
    (void)eventfd_read(channel->wake, &count); /* it does not block */
}

void channel_set_timeout(struct channel *channel, int timeout_ms)
{
    unsigned unacknowledged = 0; /* as the kernel likes */

    if (timeout_ms >= 0)
        unacknowledged =
            timeout_ms > CHANNEL_TIMEOUT_MS ? (unsigned)timeout_ms : CHANNEL_TIMEOUT_MS;
    atomic_store(&channel->timeout_ms, timeout_ms);
    (void)setsockopt(channel->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged,
                     sizeof(unacknowledged));
}

void channel_set_patience(struct channel *channel, int ms)
{
    atomic_store(&channel->until_ns, channel_deadline_ns(ms));
}

void channel_set_limit(struct channel *channel, struct channel_limit *limit)
{
    atomic_store(&channel->limit, limit);
}

uint64_t channel_sent_bytes(const struct channel *channel)
{
    return atomic_load(&channel->sent);
}

uint64_t channel_received_bytes(const struct channel *channel)
{
    return atomic_load(&channel->received);
}

const char *channel_peer(const struct channel *channel)
{
    return channel->peer;
}

uint64_t channel_unsent_bytes(const struct channel *channel)
{
    int bytes = 0;

    return ioctl(channel->fd, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? (uint64_t)bytes : 0;
}

int channel_create(int fd, struct tls_session *tls, const char *peer, struct channel **ret_channel,
                   struct error *err)
{
    struct channel *channel = calloc(1, sizeof(*channel));
    int r;

    if (!channel)
        return error_set(err, ENOMEM, "%s: out of memory", peer);
    channel->fd = -1;
    channel->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    channel->peer = strdup(peer);
    if (channel->wake < 0)
        r = error_errno(err, errno, "%s", peer);
    else if (!channel->peer)
        r = error_set(err, ENOMEM, "%s: out of memory", peer);
    else
        r = 0;
    if (r < 0) {
        channel_destroy(channel);
        return r;
    }
    channel->fd = fd;
    channel->tls = tls;
    channel_set_timeout(channel, CHANNEL_TIMEOUT_MS);
    channel_set_patience(channel, -1);
    *ret_channel = channel;
    return 0;
}

/*
 * close() with bytes that nobody read would reset the connection, and what the other side has not
 * received yet could be lost with it: so what is there is read first.
 */
static void hang_up(int fd)
{
    uint8_t unread[4096];

    (void)shutdown(fd, SHUT_WR);
    for (unsigned i = 0; i < 1024 && recv(fd, unread, sizeof(unread), MSG_DONTWAIT) > 0; i++)
        ;
    close(fd);
}

void channel_finish(struct channel *channel, int timeout_ms)
{
    uint64_t end = channel_now_ns() + (uint64_t)timeout_ms * 1000000;
    struct pollfd there = {.fd = channel->fd, .events = POLLIN};
    uint8_t unread[4096];
    ssize_t n = 1;

    tls_session_destroy(channel->tls);
    channel->tls = NULL;
    (void)shutdown(channel->fd, SHUT_WR);
    while (n != 0 && channel_now_ns() < end) {
        n = recv(channel->fd, unread, sizeof(unread), MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            break;
        if (n < 0)
            (void)channel_poll(&there, 1, end);
    }
}

void channel_destroy(struct channel *channel)
{
    if (!channel)
        return;
    tls_session_destroy(channel->tls);
    if (channel->fd >= 0)
        hang_up(channel->fd);
    if (channel->wake >= 0)
        close(channel->wake);
    free(channel->peer);
    free(channel);
}
