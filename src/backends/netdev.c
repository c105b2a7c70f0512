/* SPDX-License-Identifier: Apache-2.0 */
/* netdev: which of the two kinds a call is for. tap.c and user_net.c do the work. */
#include "vmrun/netdev.h"

#include "netdev_ops.h"

void netdev_init(struct netdev *netdev, const struct netdev_ops *ops)
{
    netdev->ops = ops;
}

void netdev_close(struct netdev *netdev)
{
    if (netdev)
        netdev->ops->close(netdev);
}

int netdev_fd(const struct netdev *netdev, unsigned queue)
{
    return netdev->ops->fd(netdev, queue);
}

int64_t netdev_send(struct netdev *netdev, unsigned queue, const struct iovec *iov, unsigned count)
{
    return netdev->ops->send(netdev, queue, iov, count);
}

int64_t netdev_receive(struct netdev *netdev, unsigned queue, const struct iovec *iov,
                       unsigned count)
{
    return netdev->ops->receive(netdev, queue, iov, count);
}

int netdev_flush(struct netdev *netdev, unsigned queue)
{
    return netdev->ops->flush ? netdev->ops->flush(netdev, queue) : 0;
}

bool netdev_more(const struct netdev *netdev, unsigned queue)
{
    return netdev->ops->more && netdev->ops->more(netdev, queue);
}

bool netdev_relays(const struct netdev *netdev)
{
    return netdev->ops->relays;
}

bool netdev_offloads(const struct netdev *netdev)
{
    return netdev->ops->set_offload;
}

int netdev_set_offload(struct netdev *netdev, const struct netdev_offload *offload,
                       struct error *err)
{
    return netdev->ops->set_offload ? netdev->ops->set_offload(netdev, offload, err) : 0;
}

int netdev_set_queues(struct netdev *netdev, unsigned queues, struct error *err)
{
    return netdev->ops->set_queues ? netdev->ops->set_queues(netdev, queues, err) : 0;
}

void netdev_moved(struct netdev *netdev)
{
    if (netdev->ops->moved)
        netdev->ops->moved(netdev);
}

unsigned netdev_mtu(const struct netdev *netdev)
{
    return netdev->ops->mtu(netdev);
}

bool netdev_link_up(const struct netdev *netdev)
{
    return netdev->ops->link_up(netdev);
}

int netdev_link_fd(const struct netdev *netdev)
{
    return netdev->ops->link_fd(netdev);
}

void netdev_link_drain(struct netdev *netdev)
{
    netdev->ops->link_drain(netdev);
}
