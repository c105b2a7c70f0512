/* SPDX-License-Identifier: Apache-2.0 */
/* torture_network: a stream that comes back, and a datagram a millisecond that comes back. */
#include "torture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int open_socket(int type, const char *host, bool listens)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), one = 1;

    if (host)
        inet_pton(AF_INET, host, &address.sin_addr);
    if (fd < 0)
        give_up("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (listens ? bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0
                : connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        give_up(listens ? "bind" : "connect");
    return fd;
}

static void check_stream(const uint8_t *bytes, ssize_t n, uint64_t *at)
{
    for (ssize_t i = 0; i < n; i++, ++*at)
        if (bytes[i] != stream_byte(0, *at)) {
            wrong("tcp: byte %llu", (unsigned long long)*at);
            *at = 0; /* once is enough: the rest is not looked at */
            return;
        }
}

static void *stream(void *peer)
{
    int fd = open_socket(SOCK_STREAM, peer, false);
    uint64_t sent = 0, got = 0;
    struct ear ear = {0};
    uint8_t bytes[4096];

    for (;;) {
        bool heard = false;
        struct pollfd p = {.fd = fd,
                           .events = (short)(POLLIN | (sent - got < 1 << 20 ? POLLOUT : 0))};

        poll(&p, 1, 1000);
        if (p.revents & POLLIN) {
            ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

            if (n == 0 || (n < 0 && errno != EAGAIN)) {
                wrong("tcp: %s", n ? strerror(errno) : "the host hung up");
                return NULL;
            }
            if (n > 0) {
                check_stream(bytes, n, &got);
                count(&done.received, (uint64_t)n);
                heard = true;
            }
        }
        if (p.revents & POLLOUT) {
            for (unsigned i = 0; i < sizeof(bytes); i++)
                bytes[i] = stream_byte(0, sent + i);
            ssize_t n = send(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n > 0) {
                sent += (uint64_t)n;
                count(&done.sent, (uint64_t)n);
            }
            usleep(2000);
        }
        if (ear_is_idle(&ear, heard))
            wrong("tcp: nothing came back for 20 s");
    }
    return NULL;
}

static void *echoes(void *peer)
{
    int fd = open_socket(SOCK_DGRAM, peer, false);
    uint64_t next = 1, back;

    for (;; next++) {
        (void)send(fd, &next, sizeof(next), MSG_DONTWAIT);
        usleep(1000);
        while (recv(fd, &back, sizeof(back), MSG_DONTWAIT) == (ssize_t)sizeof(back)) {
            if (back > next)
                wrong("udp: echo of %llu, which was not sent", (unsigned long long)back);
            count(&done.echoes, 1);
        }
        __atomic_store_n(&done.lost, next - value(&done.echoes), __ATOMIC_RELAXED);
    }
    return NULL;
}

void start_network(const char *peer)
{
    start(stream, (void *)peer);
    start(echoes, (void *)peer);
}

/* The host's end: send back what comes. */
void echo(void)
{
    int listener = open_socket(SOCK_STREAM, NULL, true), udp = open_socket(SOCK_DGRAM, NULL, true);
    int tcp = -1;
    uint8_t bytes[65536];

    listen(listener, 4);
    for (;;) {
        struct pollfd p[] = {{.fd = listener, .events = POLLIN},
                             {.fd = udp, .events = POLLIN},
                             {.fd = tcp, .events = POLLIN}};

        poll(p, 3, -1);
        if (p[0].revents) {
            close(tcp);
            tcp = accept(listener, NULL, NULL);
            continue;
        }
        if (p[1].revents) {
            struct sockaddr_in from;
            socklen_t len = sizeof(from);
            ssize_t n = recvfrom(udp, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &len);

            if (n > 0)
                (void)sendto(udp, bytes, (size_t)n, MSG_DONTWAIT, (struct sockaddr *)&from, len);
        }
        if (p[2].revents) {
            ssize_t n = recv(tcp, bytes, sizeof(bytes), 0);

            if (n <= 0 || send(tcp, bytes, (size_t)n, MSG_NOSIGNAL) != n) {
                close(tcp);
                tcp = -1;
            }
        }
    }
}
