/* SPDX-License-Identifier: Apache-2.0 */
/* fake_netdev: SOCK_SEQPACKET keeps packets apart and cuts them as a tap does. */
#include "fake_netdev.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const struct fake_netdev *self(const struct netdev *netdev)
{
    return (const struct fake_netdev *)netdev;
}

struct netdev *fake_netdev_init(struct fake_netdev *fake, unsigned queues)
{
    *fake = (struct fake_netdev){.queues = queues, .active = 1, .mtu = 1500, .up = true};
    fake->link_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_true(fake->link_fd >= 0);
    for (unsigned i = 0; i < queues; i++) {
        int ends[2];

        assert_int_equal(
            socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
        fake->device[i] = ends[0];
        fake->wire[i] = ends[1];
    }
    return (struct netdev *)fake;
}

void fake_netdev_fini(struct fake_netdev *fake)
{
    for (unsigned i = 0; i < fake->queues; i++) {
        close(fake->device[i]);
        if (fake->wire[i] >= 0)
            close(fake->wire[i]);
    }
    close(fake->link_fd);
}

void fake_netdev_give(struct fake_netdev *fake, unsigned queue, const void *packet, size_t len)
{
    assert_int_equal(send(fake->wire[queue], packet, len, MSG_NOSIGNAL), (ssize_t)len);
}

size_t fake_netdev_take(struct fake_netdev *fake, unsigned queue, void *packet, size_t len)
{
    ssize_t n = recv(fake->wire[queue], packet, len, 0);

    return n < 0 ? 0 : (size_t)n;
}

void fake_netdev_set_up(struct fake_netdev *fake, bool up)
{
    fake->up = up;
    assert_int_equal(eventfd_write(fake->link_fd, 1), 0);
}

void fake_netdev_narrow(struct fake_netdev *fake, unsigned queue)
{
    int least = 1;

    assert_int_equal(setsockopt(fake->device[queue], SOL_SOCKET, SO_SNDBUF, &least, sizeof(least)),
                     0);
}

void fake_netdev_remove(struct fake_netdev *fake, unsigned queue)
{
    close(fake->wire[queue]);
    fake->wire[queue] = -1;
    fake->up = false;
}

void fake_netdev_drain(struct fake_netdev *fake)
{
    char byte;

    for (unsigned i = 0; i < fake->queues; i++)
        while (recv(fake->device[i], &byte, 1, 0) > 0 || recv(fake->wire[i], &byte, 1, 0) > 0)
            ;
}

__attribute__((weak)) void netdev_close(struct netdev *netdev)
{
    if (netdev)
        fake_netdev_fini((struct fake_netdev *)netdev);
}

__attribute__((weak)) int netdev_fd(const struct netdev *netdev, unsigned queue)
{
    return self(netdev)->device[queue];
}

__attribute__((weak)) int64_t netdev_send(struct netdev *netdev, unsigned queue,
                                          const struct iovec *iov, unsigned count)
{
    const struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = count};
    ssize_t n;

    if (!self(netdev)->up)
        return -EIO;
    n = sendmsg(self(netdev)->device[queue], &message, MSG_NOSIGNAL);
    return n < 0 ? -errno : n;
}

__attribute__((weak)) int64_t netdev_receive(struct netdev *netdev, unsigned queue,
                                             const struct iovec *iov, unsigned count)
{
    ssize_t n = readv(self(netdev)->device[queue], iov, (int)count);

    if (n == 0)
        return -EBADFD;
    return n < 0 ? -errno : n;
}

__attribute__((weak)) int netdev_flush(struct netdev *netdev, unsigned queue)
{
    struct fake_netdev *fake = (struct fake_netdev *)netdev;

    (void)queue;
    fake->flushes++;
    if (!fake->holds_back)
        return 0;
    fake->holds_back--;
    return -EAGAIN;
}

__attribute__((weak)) bool netdev_more(const struct netdev *netdev, unsigned queue)
{
    (void)netdev;
    (void)queue;
    return false; /* its socket says of each one */
}

__attribute__((weak)) bool netdev_relays(const struct netdev *netdev)
{
    return self(netdev)->plain;
}

__attribute__((weak)) bool netdev_offloads(const struct netdev *netdev)
{
    return !self(netdev)->plain;
}

__attribute__((weak)) void netdev_moved(struct netdev *netdev)
{
    ((struct fake_netdev *)netdev)->moves++;
}

__attribute__((weak)) int
netdev_set_offload(struct netdev *netdev, const struct netdev_offload *offload, struct error *err)
{
    struct fake_netdev *fake = (struct fake_netdev *)netdev;

    if (fake->refuses)
        return error_set(err, EINVAL, "no offloads, as the test wants it");
    fake->offload = *offload;
    return 0;
}

__attribute__((weak)) unsigned netdev_mtu(const struct netdev *netdev)
{
    return self(netdev)->mtu;
}

__attribute__((weak)) bool netdev_link_up(const struct netdev *netdev)
{
    return self(netdev)->up;
}

__attribute__((weak)) int netdev_link_fd(const struct netdev *netdev)
{
    return self(netdev)->link_fd;
}

__attribute__((weak)) void netdev_link_drain(struct netdev *netdev)
{
    eventfd_t count;

    (void)eventfd_read(self(netdev)->link_fd, &count);
}

__attribute__((weak)) int netdev_set_queues(struct netdev *netdev, unsigned queues,
                                            struct error *err)
{
    struct fake_netdev *fake = (struct fake_netdev *)netdev;

    if (fake->refuses)
        return error_set(err, EINVAL, "no queues, as the test wants it");
    assert_in_range(queues, 1, fake->queues);
    for (unsigned i = queues; fake->detaches && i < fake->active; i++)
        fake->detaches(fake->opaque, i);
    fake->active = queues;
    return 0;
}
