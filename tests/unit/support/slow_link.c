/* SPDX-License-Identifier: Apache-2.0 */
#include "slow_link.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PIECE 8192
#define ROOM 16384 /* of a socket's buffer */
#define NS_PER_S UINT64_C(1000000000)

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* What is there, to the other; false: there is no more. */
static bool pass_on(int from, int to)
{
    char bytes[PIECE];
    ssize_t n = recv(from, bytes, sizeof(bytes), 0);

    for (ssize_t at = 0; n > 0 && at < n;) {
        ssize_t sent = send(to, bytes + at, (size_t)(n - at), MSG_NOSIGNAL);

        if (sent <= 0)
            return false;
        at += sent;
    }
    return n > 0;
}

static void *carry(void *opaque)
{
    struct slow_link *link = opaque;
    struct sockaddr_in at = loopback(link->port);
    int near = accept(link->listener, NULL, NULL), far = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct pollfd fds[2] = {{.fd = near, .events = POLLIN}, {.fd = far, .events = POLLIN}};
    bool goes_on = near >= 0 && far >= 0;

    if (goes_on) {
        (void)setsockopt(near, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        (void)setsockopt(far, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        goes_on = connect(far, (struct sockaddr *)&at, sizeof(at)) == 0;
    }
    while (goes_on && poll(fds, 2, -1) > 0) {
        if (fds[1].revents)
            goes_on = pass_on(far, near);
        if (goes_on && fds[0].revents) {
            goes_on = pass_on(near, far);
            nanosleep(&(struct timespec){.tv_nsec = (long)(PIECE * NS_PER_S / link->bytes_per_s)},
                      NULL);
        }
    }
    close(near);
    close(far);
    return NULL;
}

void slow_link_start(struct slow_link *link, const char *url, uint64_t bytes_per_s)
{
    struct sockaddr_in at = loopback(0);
    socklen_t len = sizeof(at);
    int room = ROOM;

    link->bytes_per_s = bytes_per_s;
    assert_int_equal(sscanf(url, "tcp://127.0.0.1:%d", &link->port), 1);
    link->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(link->listener >= 0);
    (void)setsockopt(link->listener, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    assert_int_equal(bind(link->listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(link->listener, 1), 0);
    assert_int_equal(getsockname(link->listener, (struct sockaddr *)&at, &len), 0);
    snprintf(link->url, sizeof(link->url), "tcp://127.0.0.1:%d", ntohs(at.sin_port));
    assert_int_equal(pthread_create(&link->thread, NULL, carry, link), 0);
}

void slow_link_join(struct slow_link *link)
{
    pthread_join(link->thread, NULL);
    close(link->listener);
}
