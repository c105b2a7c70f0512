/* SPDX-License-Identifier: Apache-2.0 */
/*
 * user_net: a network for whoever has no privilege. The other end of the wire is a process,
 * passt(1), which turns frames into the host's own sockets and back.
 *
 * The one thing to know: both ends of its socket are ours to keep, and a new passt gets the same
 * one, so the descriptor that the card waits for is one for life. Nobody sees a hang-up;
 * that passt has ended its process descriptor says. What is under way then is thrown away.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "netdev_ops.h"
#include "netstream.h"
#include "passt.h"
#include "vmrun/log.h"
#include "vmrun/loop.h"

#define READY_MS 10000
#define REST_MS 100
#define LONGEST_REST_MS 5000
#define GOOD_MS 10000          /* a passt that has run so long may be started again at once */
#define NOTICE_MS 300          /* how long a link must be down for a guest to take notice */
#define SOCKET_BYTES (4 << 20) /* the kernel makes it what it allows */

enum user_state {
    USER_STARTING, /* until passt says that it is ready: the timer runs */
    USER_READY,    /* a timer may run, after which it is a good one */
    USER_NOTICED,  /* likewise, but the guest is to see the link down: the timer runs */
    USER_RESTING,  /* until passt is started again: the timer runs */
};

struct user_net {
    struct netdev netdev;
    char id[32];
    char *forwards; /* or NULL */
    unsigned mtu;
    char **argv;
    int ours, theirs; /* the ends of the wire */
    int news_fd;      /* an epoll of the timer and of passt's two descriptors */
    int timer_fd;
    struct netstream stream;
    struct passt passt;
    enum user_state state;
    bool broken; /* passt has sent what is no frame: until it is ended nothing is read */
    unsigned rest_ms;
    struct log_limit complaints;
};

static void arm(struct user_net *u, unsigned ms)
{
    const struct itimerspec when = {
        .it_value = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000}};

    (void)timerfd_settime(u->timer_fd, 0, &when, NULL);
}

static int watch(struct user_net *u, int fd, struct error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    if (epoll_ctl(u->news_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return error_errno(err, errno, "watch passt");
    return 0;
}

static void empty_socket(int fd)
{
    char bytes[4096];

    /* At most what it holds: whoever writes to it has ended, or is ended next. */
    for (unsigned i = 0; i < 2 * (SOCKET_BYTES / sizeof(bytes)); i++)
        if (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_TRUNC) <= 0)
            break;
}

/* Starting and ending passt */

static int start(struct user_net *u, struct error *err)
{
    int r = passt_check_ports(u->forwards, err);

    if (r < 0)
        return r;
    empty_socket(u->ours);
    empty_socket(u->theirs);
    netstream_reset(&u->stream);
    u->broken = false;
    r = passt_start(&u->passt, u->argv, u->theirs, err);
    if (r < 0)
        return r;
    r = watch(u, u->passt.pid_fd, err);
    if (r == 0)
        r = watch(u, u->passt.words_fd, err);
    if (r < 0) {
        passt_end(&u->passt);
        return r;
    }
    u->state = USER_STARTING;
    arm(u, READY_MS);
    return 0;
}

/* It is no more, and the reason was told: once more, later. */
static void rest(struct user_net *u)
{
    u->state = USER_RESTING;
    arm(u, u->rest_ms);
    u->rest_ms = 2 * u->rest_ms < LONGEST_REST_MS ? 2 * u->rest_ms : LONGEST_REST_MS;
}

static void lost(struct user_net *u, const char *why)
{
    log_warn_limited(&u->complaints, "%s: %s; the guest's link is down until passt runs again",
                     u->id, why);
    passt_forget_words(&u->passt);
    rest(u);
}

static void try_again(struct user_net *u)
{
    struct error err;

    if (start(u, &err) < 0)
        lost(u, err.msg);
}

static void is_ready(struct user_net *u)
{
    u->state = USER_READY;
    arm(u, GOOD_MS);
    if (u->rest_ms > REST_MS)
        log_info("%s: passt runs again", u->id);
}

static void timer_rang(struct user_net *u)
{
    switch (u->state) {
    case USER_STARTING:
        passt_end(&u->passt);
        lost(u, "passt says nothing");
        break;
    case USER_NOTICED: u->state = USER_READY; break;
    case USER_RESTING: try_again(u); break;
    case USER_READY: u->rest_ms = REST_MS; break; /* it has run for a while */
    }
}

static void user_link_drain(struct netdev *netdev)
{
    struct user_net *u = (struct user_net *)netdev;
    uint64_t rings;

    passt_hear(&u->passt);
    if (u->passt.pid && passt_has_ended(&u->passt)) {
        lost(u, u->passt.said);
        return;
    }
    if (u->state == USER_STARTING && u->passt.ready)
        is_ready(u);
    if (u->state == USER_READY && u->passt.said_len) {
        log_warn_limited(&u->complaints, "%s: passt: %s", u->id, u->passt.said);
        passt_forget_words(&u->passt);
    }
    if (read(u->timer_fd, &rings, sizeof(rings)) == sizeof(rings))
        timer_rang(u);
}

/* Wait for the first one: what is wrong is told before the guest starts. */
static int wait_until_ready(struct user_net *u, struct error *err)
{
    uint64_t until_ns = loop_now_ns() + READY_MS * UINT64_C(1000000);

    while (!u->passt.ready) {
        struct pollfd fds[] = {{.fd = u->passt.words_fd, .events = POLLIN},
                               {.fd = u->passt.pid_fd, .events = POLLIN}};
        uint64_t now_ns = loop_now_ns();

        if (now_ns >= until_ns)
            return error_set(err, ETIMEDOUT, "passt says nothing for %u s", READY_MS / 1000);
        (void)poll(fds, 2, (int)((until_ns - now_ns) / 1000000) + 1);
        passt_hear(&u->passt);
        if (!u->passt.ready && fds[1].revents && passt_has_ended(&u->passt))
            return error_set(
                err, ECANCELED, "passt: %s%s", u->passt.said,
                strstr(u->passt.said, "interface")
                    ? " (it needs an interface of the host with a default route, whose "
                      "address it gives to the guest; 'ip route' lists them)"
                    : "");
    }
    return 0;
}

/* Frames */

static int user_fd(const struct netdev *netdev, unsigned queue)
{
    (void)queue;
    return ((const struct user_net *)netdev)->ours;
}

static bool runs(const struct user_net *u)
{
    return u->passt.pid && u->passt.ready && !u->broken;
}

static int64_t user_send(struct netdev *netdev, unsigned queue, const struct iovec *iov,
                         unsigned count)
{
    struct user_net *u = (struct user_net *)netdev;

    (void)queue;
    return runs(u) ? netstream_send(&u->stream, iov, count) : -EIO;
}

static int user_flush(struct netdev *netdev, unsigned queue)
{
    struct user_net *u = (struct user_net *)netdev;

    (void)queue;
    if (!runs(u)) {
        netstream_reset(&u->stream);
        return 0;
    }
    return netstream_flush(&u->stream) == -EAGAIN ? -EAGAIN : 0;
}

static bool user_more(const struct netdev *netdev, unsigned queue)
{
    const struct user_net *u = (const struct user_net *)netdev;

    (void)queue;
    return runs(u) && netstream_more(&u->stream);
}

static int64_t user_receive(struct netdev *netdev, unsigned queue, const struct iovec *iov,
                            unsigned count)
{
    struct user_net *u = (struct user_net *)netdev;
    int64_t n;

    (void)queue;
    if (u->broken || !u->passt.pid) {
        empty_socket(u->ours);
        return -EAGAIN;
    }
    n = netstream_receive(&u->stream, iov, count);
    if (n == -EPROTO) {
        log_warn_limited(&u->complaints, "%s: passt sent a frame of %u bytes; it is ended", u->id,
                         netstream_length(&u->stream));
        u->broken = true;
        (void)kill(u->passt.pid, SIGKILL); /* its end is news, and then the link goes down */
    }
    return n >= 0 ? n : -EAGAIN;
}

/*
 * This passt knows nothing of the guest's connections, and the host may have other addresses: a
 * guest whose link was down asks for its own anew.
 */
static void user_moved(struct netdev *netdev)
{
    struct user_net *u = (struct user_net *)netdev;

    if (u->state != USER_READY)
        return;
    u->state = USER_NOTICED;
    arm(u, NOTICE_MS);
}

static unsigned user_mtu(const struct netdev *netdev)
{
    return ((const struct user_net *)netdev)->mtu;
}

static bool user_link_up(const struct netdev *netdev)
{
    return ((const struct user_net *)netdev)->state == USER_READY;
}

static int user_link_fd(const struct netdev *netdev)
{
    return ((const struct user_net *)netdev)->news_fd;
}

/* Life */

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

static void user_close(struct netdev *netdev)
{
    struct user_net *u = (struct user_net *)netdev;

    close_if_open(u->ours);
    close_if_open(u->theirs);
    passt_end(&u->passt);
    close_if_open(u->timer_fd);
    close_if_open(u->news_fd);
    netstream_fini(&u->stream);
    free(u->argv);
    free(u->forwards);
    free(u);
}

static const struct netdev_ops ops = {
    .close = user_close,
    .fd = user_fd,
    .send = user_send,
    .receive = user_receive,
    .flush = user_flush,
    .more = user_more,
    .moved = user_moved,
    .mtu = user_mtu,
    .link_up = user_link_up,
    .link_fd = user_link_fd,
    .link_drain = user_link_drain,
    .relays = true,
};

static int open_wire(struct user_net *u, struct error *err)
{
    int bytes = SOCKET_BYTES, ends[2];

    /* passt waits for the rest of a frame in its calls; we say with each that we do not. */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return error_errno(err, errno, "socket");
    u->ours = ends[0];
    u->theirs = ends[1];
    (void)setsockopt(u->ours, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    (void)setsockopt(u->theirs, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    u->news_fd = epoll_create1(EPOLL_CLOEXEC);
    if (u->news_fd < 0)
        return error_errno(err, errno, "epoll");
    u->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (u->timer_fd < 0)
        return error_errno(err, errno, "timer");
    return watch(u, u->timer_fd, err);
}

int user_net_open(const struct user_net_params *params, struct netdev **ret_netdev,
                  struct error *err)
{
    struct user_net *u = calloc(1, sizeof(*u));
    int r;

    if (!u)
        return error_set(err, ENOMEM, "out of memory");
    netdev_init(&u->netdev, &ops);
    u->ours = u->theirs = u->news_fd = u->timer_fd = -1;
    u->passt.words_fd = u->passt.pid_fd = -1;
    u->mtu = params->mtu;
    u->rest_ms = REST_MS;
    memcpy(u->id, params->id, strnlen(params->id, sizeof(u->id) - 1));
    u->forwards = strdup(params->forwards ? params->forwards : "");
    r = u->forwards ? open_wire(u, err) : error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = passt_arguments(u->forwards, u->mtu, &u->argv, err);
    if (r == 0)
        r = netstream_init(&u->stream, u->ours, err);
    if (r == 0)
        r = start(u, err);
    if (r == 0)
        r = wait_until_ready(u, err);
    if (r < 0)
        goto fail;
    is_ready(u);
    *ret_netdev = &u->netdev;
    return 0;

fail:
    user_close(&u->netdev);
    return r;
}

int user_net_check(const struct user_net_params *params, struct error *err)
{
    int r = passt_check_installed(err);

    return r < 0 ? r : passt_check_ports(params->forwards, err);
}
