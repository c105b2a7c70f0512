/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_net_host: what the host wants of a network card: its figures, other limits, that it tells
 * others where it is. The one thing to know: these come from any thread, and take the lock.
 */
#include "virtio_net.h"

#include <errno.h>
#include <string.h>

#define HEADER NETDEV_HEADER_BYTES
#define ETHERNET_MIN 60 /* bytes of the shortest frame, without its checksum */

static struct virtio_net *self(const struct device *dev)
{
    return container_of((struct device *)dev, struct virtio_net, vdev.pci.dev);
}

void virtio_net_announce(struct device *dev)
{
    struct virtio_net *net = self(dev);

    pthread_mutex_lock(&dev->lock);
    netdev_moved(net->netdev);
    if (net->vdev.started && virtio_has(&net->vdev, VIRTIO_NET_F_GUEST_ANNOUNCE)) {
        net->announce = true;
        virtio_config_changed(&net->vdev);
    }
    pthread_mutex_unlock(&dev->lock);
}

void virtio_net_send_rarp(struct device *dev)
{
    static const uint8_t broadcast[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t asks_its_own_address[] = {
        0x80, 0x35, /* EtherType RARP */
        0x00, 0x01, /* hardware: Ethernet */
        0x08, 0x00, /* protocol: IPv4 */
        6,    4,    /* bytes of their addresses */
        0x00, 0x03, /* operation: request reverse */
    };
    struct virtio_net *net = self(dev);
    uint8_t packet[HEADER + ETHERNET_MIN] = {0}; /* nothing to be finished; addresses of IP: none */
    uint8_t *frame = packet + HEADER;
    const struct iovec iov = {.iov_base = packet, .iov_len = sizeof(packet)};

    pthread_mutex_lock(&dev->lock);
    memcpy(frame, broadcast, 6);
    memcpy(frame + 6, net->mac, 6);
    memcpy(frame + 12, asks_its_own_address, sizeof(asks_its_own_address));
    memcpy(frame + 22, net->mac, 6); /* the sender's */
    memcpy(frame + 32, net->mac, 6); /* the target's, after four bytes of IP */
    if (!net->unplugged)
        (void)netdev_send(net->netdev, 0, &iov, 1); /* no network, nobody to tell */
    if (netdev_flush(net->netdev, 0) == -EAGAIN) {
        net->pairs[0].tx_blocked = true;
        net_pair_watch(&net->pairs[0]);
    }
    pthread_mutex_unlock(&dev->lock);
}

void virtio_net_stats(struct device *dev, struct virtio_net_stats *ret_stats)
{
    const struct virtio_net *net = self(dev);
    const struct virtio_net_stats *stats = &net->stats;

    *ret_stats = (struct virtio_net_stats){
        .rx_frames = counter_read(&stats->rx_frames),
        .rx_bytes = counter_read(&stats->rx_bytes),
        .tx_frames = counter_read(&stats->tx_frames),
        .tx_bytes = counter_read(&stats->tx_bytes),
        .rx_filtered = counter_read(&stats->rx_filtered),
        .rx_dropped = counter_read(&stats->rx_dropped),
        .tx_dropped = counter_read(&stats->tx_dropped),
        .tx_waits = counter_read(&stats->tx_waits),
        .rx_limit_waits = counter_read(&net->rx_limit.waits),
        .tx_limit_waits = counter_read(&net->tx_limit.waits),
        .vhost_starts = counter_read(&stats->vhost_starts),
        .vhost_stops = counter_read(&stats->vhost_stops),
    };
}

bool virtio_net_is_counted(const struct device *dev)
{
    return !self(dev)->vhost;
}

int virtio_net_log(struct device *dev, bool on, struct error *err)
{
    struct virtio_net *net = self(dev);
    int r;

    pthread_mutex_lock(&dev->lock);
    r = net_vhost_log(net, on, err);
    pthread_mutex_unlock(&dev->lock);
    return r;
}

void virtio_net_limit(struct device *dev, const struct virtio_rates *rx,
                      const struct virtio_rates *tx)
{
    struct virtio_net *net = self(dev);

    pthread_mutex_lock(&dev->lock);
    virtio_limit_set(&net->rx_limit, rx, false);
    virtio_limit_set(&net->tx_limit, tx, false);
    pthread_mutex_unlock(&dev->lock);
}
