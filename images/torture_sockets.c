/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torture_sockets: stream sockets between the guest and a program of its host: one connection that
 * the guest makes, and one that its listener takes.
 *
 * The one thing to know: both ends do the same. Each says eight bytes of chance and then what
 * follows from them, and checks that of the other, so nothing of an earlier connection is taken for
 * good in a later one. In the guest a connection may end in one way only, by a reset, after which
 * there is the next one; whoever restores and moves the machine compares how many there were. The
 * guest's listener is made once, and outlives them all.
 */
#include "torture.h"

#include <errno.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define SAYS 1024 /* and seldom: how much a stream carries is tested elsewhere */
#define PAUSE_US 20000
#define NO_END (-1)

struct talk {
    int fd;
    uint64_t mine, other; /* the first eight bytes of each */
    uint64_t said, heard; /* bytes */
};

static void say(struct talk *t)
{
    uint8_t bytes[SAYS];
    ssize_t n;

    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = stream_byte(t->mine, t->said + i);
    n = send(t->fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) /* what went wrong else, poll tells */
        t->said += (uint64_t)n;
}

/* 0 at the end, less when there is nothing, or when it is wrong, with EBADMSG. */
static ssize_t hear(struct talk *t)
{
    uint8_t bytes[2 * SAYS];
    ssize_t n = recv(t->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    for (ssize_t i = 0; i < n; i++, t->heard++) {
        if (t->heard < sizeof(t->other))
            t->other |= (uint64_t)bytes[i] << t->heard * 8;
        if (bytes[i] != stream_byte(t->other, t->heard)) {
            errno = EBADMSG;
            return -1;
        }
    }
    return n;
}

/* Why it ended: 0, the other end closed it; an errno; NO_END. Without an ear nobody is impatient.
 */
static int turn(struct talk *t, struct ear *ear)
{
    struct pollfd p = {.fd = t->fd, .events = POLLIN | POLLOUT};
    ssize_t n = -1;

    poll(&p, 1, 1000);
    if (p.revents & POLLERR) {
        int why = EIO;
        socklen_t len = sizeof(why);

        getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &why, &len);
        return why;
    }
    if (p.revents & POLLOUT)
        say(t);
    if (p.revents & (POLLIN | POLLHUP)) {
        n = hear(t);
        if (n == 0 || (n < 0 && errno == EBADMSG))
            return n ? EBADMSG : 0;
        if (n > 0)
            count(&done.heard, (uint64_t)n);
    }
    return ear && ear_is_idle(ear, n > 0) ? ETIMEDOUT : NO_END;
}

/* Talk until it ends, and say why; the socket is closed then. */
static int converse(int fd, struct talk *t, struct ear *ear)
{
    bool open = false;
    int why;

    *t = (struct talk){.fd = fd};
    if (getrandom(&t->mine, sizeof(t->mine), 0) != (ssize_t)sizeof(t->mine))
        give_up("a number of chance");
    while ((why = turn(t, ear)) == NO_END) {
        if (t->heard && !open)
            count(&done.open, 1);
        open = t->heard != 0;
        usleep(PAUSE_US);
    }
    if (open)
        count(&done.open, UINT64_MAX);
    close(fd);
    return why;
}

/* The guest */

static void hold(int fd, const char *whose)
{
    struct talk t;
    struct ear ear = {0};
    int why = converse(fd, &t, &ear);

    if (!t.heard && why != ETIMEDOUT)
        return; /* it was never open: on a slow machine the host's patience may end before that */
    if (why == ECONNRESET)
        count(&done.resets, 1);
    else
        wrong("vsock: %s after %llu bytes there and %llu back: %s", whose,
              (unsigned long long)t.said, (unsigned long long)t.heard,
              why ? strerror(why) : "the host hung up");
}

static int guest_socket(void)
{
    const struct timeval patience = {.tv_sec = 20};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        give_up("vsock");
    setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof(patience));
    return fd;
}

static void *call_host(void *opaque)
{
    const struct sockaddr_vm host = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = PORT};

    (void)opaque;
    for (;;) {
        int fd = guest_socket();

        if (connect(fd, (const struct sockaddr *)&host, sizeof(host)) == 0) {
            hold(fd, "the guest's call");
            continue;
        }
        wrong("vsock: the guest calls the host: %s", strerror(errno));
        close(fd);
        sleep(1);
    }
    return NULL;
}

static void *take_calls(void *opaque)
{
    const struct sockaddr_vm here = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = PORT};
    int listener = guest_socket();

    (void)opaque;
    if (bind(listener, (const struct sockaddr *)&here, sizeof(here)) < 0 || listen(listener, 4) < 0)
        give_up("vsock: listen");
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            give_up("vsock: accept");
        hold(fd, "the host's call");
    }
    return NULL;
}

void start_sockets(void)
{
    start(take_calls, NULL);
    start(call_host, NULL);
}

/* The host, where connections end as machines do: only what is heard is looked at. */

static void chat(int fd)
{
    struct talk t;

    if (converse(fd, &t, NULL) == EBADMSG)
        wrong("vsock: byte %llu from the guest", (unsigned long long)t.heard);
}

static int host_socket(const char *path, const char *suffix, struct sockaddr_un *ret_address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "%s%s", path, suffix);
    if (fd < 0)
        give_up("socket");
    return fd;
}

/* Whether the guest's listener has accepted. */
static bool is_taken(int fd)
{
    char words[32];
    size_t used = (size_t)snprintf(words, sizeof(words), "CONNECT %d\n", PORT);

    if (send(fd, words, used, MSG_NOSIGNAL) < 0)
        return false;
    used = 0;
    while (used < sizeof(words) && recv(fd, words + used, 1, 0) == 1)
        if (words[used++] == '\n')
            return strncmp(words, "OK ", 3) == 0;
    return false;
}

/* Whichever machine is there, as soon as there is one. */
static void *call_guest(void *path)
{
    for (;; usleep(100000)) {
        struct sockaddr_un guest;
        int fd = host_socket(path, "", &guest);

        if (connect(fd, (const struct sockaddr *)&guest, sizeof(guest)) == 0 && is_taken(fd))
            chat(fd);
        else
            close(fd);
    }
    return NULL;
}

void answer(const char *path)
{
    struct sockaddr_un here;
    char suffix[16];
    int listener;

    snprintf(suffix, sizeof(suffix), "_%d", PORT);
    listener = host_socket(path, suffix, &here);
    unlink(here.sun_path);
    if (bind(listener, (const struct sockaddr *)&here, sizeof(here)) < 0 || listen(listener, 4) < 0)
        give_up(here.sun_path);
    start(call_guest, (void *)path);
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            give_up("accept");
        chat(fd);
    }
}
