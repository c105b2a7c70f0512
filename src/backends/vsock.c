/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock: Unix sockets for a guest's connections to its host.
 *
 * The one thing to know: all of them hang, edge-triggered, on an epoll of our own, which a loop
 * watches as one descriptor. So a stream can be closed on any thread, and a thousand of them that
 * are busy cost no system call to be watched or left alone.
 */
#include "vmrun/vsock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmrun/text.h"

#define PATH_ROOM sizeof(((struct sockaddr_un *)0)->sun_path)
#define PORT_DIGITS 10
#define BACKLOG 1024
#define WAIT_EVENTS 64
#define WANTED_FILES 8192 /* that the process may have open, when the system's limit allows it */
#define LOCK_TRIES 200
#define LOCK_REST_US 10000

struct vsock_host {
    int listener, epoll;
    bool bound; /* dev and ino are the file's */
    dev_t dev;
    ino_t ino;
    char path[PATH_ROOM];
};

/* The file */

/* Looking at the file and taking its place happen under a lock on the folder. */
static int lock_folder(const char *path, int *ret_fd, struct error *err)
{
    char copy[PATH_ROOM];
    int fd;

    snprintf(copy, sizeof(copy), "%s", path);
    fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "%s: its folder", path);
    for (unsigned i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
        if (errno == EINTR || (errno == EWOULDBLOCK && i < LOCK_TRIES)) {
            usleep(LOCK_REST_US);
            continue;
        }
        int r = errno == EWOULDBLOCK
                    ? error_set(err, EADDRINUSE, "%s: another process has locked its folder", path)
                    : error_errno(err, errno, "%s: lock its folder", path);
        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

/* Without waiting: 0, or -errno. */
static int connect_to(int fd, const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    memcpy(addr.sun_path, path, strnlen(path, sizeof(addr.sun_path) - 1));
    return connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
}

static int unix_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd < 0 ? -errno : fd;
}

static int refuse_live(int fd, const char *path, struct error *err)
{
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);
    char who[32] = "";

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid > 0)
        snprintf(who, sizeof(who), " (pid %d)", (int)peer.pid);
    return error_set(err, EADDRINUSE,
                     "%s: another process%s listens there; each machine, and each clone, needs a "
                     "socket of its own: set vsock.socket to another path",
                     path, who);
}

/* With the lock held: nothing is at the path any more, or in words why not. */
static int clear_path(const char *path, struct error *err)
{
    struct stat st;
    int fd, r;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", path);
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, EEXIST, "%s: in the way and not a socket; remove it", path);
    fd = unix_socket();
    if (fd < 0)
        return error_errno(err, -fd, "%s", path);
    r = connect_to(fd, path);
    if (r == 0 || r == -EAGAIN)
        r = refuse_live(fd, path, err);
    else if (r == -ECONNREFUSED && unlink(path) < 0 && errno != ENOENT)
        r = error_errno(err, errno, "%s: remove the socket that a dead process left", path);
    else
        r = r == -ECONNREFUSED || r == -ENOENT ? 0 : error_errno(err, -r, "%s", path);
    close(fd);
    return r;
}

static int bind_path(struct vsock_host *host, struct error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct stat st;

    memcpy(addr.sun_path, host->path, sizeof(addr.sun_path));
    /* On Linux the file takes its mode from the socket: at no moment is it wider than 0600. */
    if (fchmod(host->listener, 0600) < 0 ||
        bind(host->listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        lstat(host->path, &st) < 0)
        return error_errno(err, errno, "%s", host->path);
    host->bound = true;
    host->dev = st.st_dev;
    host->ino = st.st_ino;
    return listen(host->listener, BACKLOG) < 0 ? error_errno(err, errno, "%s", host->path) : 0;
}

static int claim(struct vsock_host *host, struct error *err)
{
    int lock = -1, r = lock_folder(host->path, &lock, err);

    if (r < 0)
        return r;
    r = clear_path(host->path, err);
    if (r == 0)
        r = bind_path(host, err);
    close(lock);
    return r;
}

/* Each connection is a descriptor, and what shells set as limit is for programs with a few. */
static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= WANTED_FILES)
        return;
    limit.rlim_cur = limit.rlim_max < WANTED_FILES ? limit.rlim_max : WANTED_FILES;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* accept(2) will say when it is too low */
}

static int watch(struct vsock_host *host, int fd, uint64_t tag, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = tag};

    return epoll_ctl(host->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int vsock_host_open(const char *path, struct vsock_host **ret_host, struct error *err)
{
    struct vsock_host *host;
    int r;

    if (strlen(path) + 1 + PORT_DIGITS >= PATH_ROOM)
        return error_set(err, ENAMETOOLONG,
                         "%.60s...: too long for a socket (at most %zu characters)", path,
                         PATH_ROOM - PORT_DIGITS - 2);
    host = calloc(1, sizeof(*host));
    if (!host)
        return error_set(err, ENOMEM, "%s: out of memory", path);
    snprintf(host->path, sizeof(host->path), "%s", path);
    raise_file_limit();
    host->epoll = epoll_create1(EPOLL_CLOEXEC);
    host->listener = unix_socket();
    if (host->epoll < 0 || host->listener < 0) {
        r = error_errno(err, host->epoll < 0 ? errno : -host->listener, "%s", path);
        goto fail;
    }
    r = claim(host, err);
    if (r < 0)
        goto fail;
    r = watch(host, host->listener, VSOCK_LISTENER, EPOLLIN);
    if (r < 0) {
        error_errno(err, -r, "%s", path);
        goto fail;
    }
    *ret_host = host;
    return 0;

fail:
    vsock_host_close(host);
    return r;
}

void vsock_host_close(struct vsock_host *host)
{
    struct error ignored;
    struct stat st;
    int lock = -1;

    if (!host)
        return;
    if (host->bound) {
        /* Someone may have removed our file, and another machine may have its place by now. */
        (void)lock_folder(host->path, &lock, &ignored);
        if (lstat(host->path, &st) == 0 && st.st_dev == host->dev && st.st_ino == host->ino)
            unlink(host->path);
        if (lock >= 0)
            close(lock);
    }
    if (host->listener >= 0)
        close(host->listener);
    if (host->epoll >= 0)
        close(host->epoll);
    free(host);
}

/* Events */

int vsock_host_fd(const struct vsock_host *host)
{
    return host->epoll;
}

unsigned vsock_host_wait(struct vsock_host *host, struct vsock_event *events, unsigned max)
{
    struct epoll_event raw[WAIT_EVENTS];
    int n = epoll_wait(host->epoll, raw, (int)(max < WAIT_EVENTS ? max : WAIT_EVENTS), 0);

    for (int i = 0; i < n; i++)
        events[i] = (struct vsock_event){
            .tag = raw[i].data.u64,
            .readable = raw[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR),
            .writable = raw[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR),
            .hung_up = raw[i].events & (EPOLLHUP | EPOLLERR),
        };
    return n < 0 ? 0 : (unsigned)n;
}

void vsock_host_listen(struct vsock_host *host, bool on)
{
    struct epoll_event event = {.events = on ? EPOLLIN : 0, .data.u64 = VSOCK_LISTENER};
    int r = epoll_ctl(host->epoll, EPOLL_CTL_MOD, host->listener, &event);

    assert(r == 0);
}

/* Streams */

static int add_stream(struct vsock_host *host, int fd, uint64_t tag)
{
    int r = watch(host, fd, tag, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);

    if (r == 0)
        return fd;
    close(fd);
    return r;
}

int vsock_accept(struct vsock_host *host, uint64_t tag)
{
    int fd;

    do
        fd = accept4(host->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    return fd < 0 ? -errno : add_stream(host, fd, tag);
}

int vsock_dial(struct vsock_host *host, uint32_t port, uint64_t tag)
{
    char path[PATH_ROOM + PORT_DIGITS + 2];
    int fd, r;

    snprintf(path, sizeof(path), "%s_%u", host->path, port);
    fd = unix_socket();
    if (fd < 0)
        return fd;
    r = connect_to(fd, path);
    if (r == 0)
        return add_stream(host, fd, tag);
    close(fd);
    return r;
}

void vsock_close(int stream)
{
    close(stream);
}

void vsock_shutdown(int stream, bool receive, bool send)
{
    if (receive || send)
        (void)shutdown(stream, receive && send ? SHUT_RDWR : receive ? SHUT_RD : SHUT_WR);
}

ssize_t vsock_send(int stream, const struct iovec *iov, unsigned count)
{
    const struct msghdr message = {.msg_iov = (struct iovec *)iov,
                                   .msg_iovlen = count < IOV_MAX ? count : IOV_MAX};
    ssize_t n;

    do
        n = sendmsg(stream, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t vsock_receive(int stream, const struct iovec *iov, unsigned count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)iov,
                             .msg_iovlen = count < IOV_MAX ? count : IOV_MAX};
    ssize_t n;

    do
        n = recvmsg(stream, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* The words */

/* "CONNECT 1234", in its buffer, terminated. */
static int parse_greeting(char *text, uint32_t *ret_port)
{
    static const char word[] = "CONNECT ";
    uint64_t port;

    if (strncasecmp(text, word, strlen(word)) != 0)
        return -EPROTO;
    text += strlen(word);
    text[strcspn(text, "\r")] = '\0';
    if (text_parse_uint(text, UINT32_MAX, &port) < 0)
        return -EPROTO;
    *ret_port = (uint32_t)port;
    return 1;
}

/* What follows the line is the guest's, so it is looked at before it is taken. */
int vsock_read_greeting(int stream, struct vsock_greeting *greeting, uint32_t *ret_port)
{
    char *at = greeting->text + greeting->len;
    size_t room = sizeof(greeting->text) - greeting->len;
    const char *end;
    ssize_t n;

    do
        n = recv(stream, at, room, MSG_PEEK | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 && errno == EAGAIN ? -EAGAIN : -EPROTO;
    end = memchr(at, '\n', (size_t)n);
    if (end)
        n = end - at + 1;
    if (recv(stream, at, (size_t)n, MSG_DONTWAIT) != n)
        return -EPROTO;
    greeting->len += (unsigned)n;
    if (!end)
        return greeting->len < sizeof(greeting->text) ? -EAGAIN : -EPROTO;
    greeting->text[greeting->len - 1] = '\0';
    return parse_greeting(greeting->text, ret_port);
}

int vsock_answer_greeting(int stream, uint32_t port)
{
    char text[32];
    int len = snprintf(text, sizeof(text), "OK %u\n", port);
    const struct iovec iov = {.iov_base = text, .iov_len = (size_t)len};
    ssize_t n = vsock_send(stream, &iov, 1);

    if (n == len)
        return 0;
    return n < 0 ? (int)n : -EIO;
}
