/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_net: a network card, VIRTIO 1.2 "Network Device": sending, the link, and the life of
 * the device. Frames are not copied: the netdev reads from and writes to the guest's own buffers.
 *
 * The one thing to know: one loop serves all queues. A pair waits either for its netdev (then
 * doorbells are off) or for the guest (then the netdev is not watched); net_pair_watch() follows.
 */
#include "virtio_net.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLASS_ETHERNET 0x020000
#define HEADER NETDEV_HEADER_BYTES
#define TX_BURST 128 /* frames in one go, before the others on this loop have theirs */

#define FEATURES \
    (UINT64_C(1) << VIRTIO_NET_F_CSUM | UINT64_C(1) << VIRTIO_NET_F_HOST_TSO4 | \
     UINT64_C(1) << VIRTIO_NET_F_HOST_TSO6 | UINT64_C(1) << VIRTIO_NET_F_HOST_ECN | \
     UINT64_C(1) << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS | UINT64_C(1) << VIRTIO_NET_F_MAC | \
     UINT64_C(1) << VIRTIO_NET_F_MRG_RXBUF | UINT64_C(1) << VIRTIO_NET_F_STATUS | \
     UINT64_C(1) << VIRTIO_NET_F_CTRL_VQ | UINT64_C(1) << VIRTIO_NET_F_CTRL_RX | \
     UINT64_C(1) << VIRTIO_NET_F_CTRL_VLAN | UINT64_C(1) << VIRTIO_NET_F_CTRL_MAC_ADDR | \
     UINT64_C(1) << VIRTIO_NET_F_GUEST_ANNOUNCE | NET_GUEST_OFFLOADS)
#define CHECKSUMS (UINT64_C(1) << VIRTIO_NET_F_CSUM | UINT64_C(1) << VIRTIO_NET_F_GUEST_CSUM)
/* Without these all frames are whole packets of the wire, */
#define SEGMENTS \
    (UINT64_C(1) << VIRTIO_NET_F_HOST_TSO4 | UINT64_C(1) << VIRTIO_NET_F_HOST_TSO6 | \
     UINT64_C(1) << VIRTIO_NET_F_HOST_ECN | UINT64_C(1) << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS | \
     (NET_GUEST_OFFLOADS & ~CHECKSUMS))
/* and without these finished as well, and checked by the guest. */
#define UNFINISHED (SEGMENTS | CHECKSUMS)

static_assert(offsetof(struct virtio_net, vdev) == 0, "state offsets count from the device");

static struct virtio_net *self(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_net, vdev);
}

static struct virtio_net *from_device(struct device *dev)
{
    return container_of(dev, struct virtio_net, vdev.pci.dev);
}

bool net_runs(const struct virtio_net *net)
{
    return net->vdev.started && !net->vdev.paused;
}

void net_pair_watch(struct net_pair *pair)
{
    bool used = net_runs(pair->net) && pair->index < pair->net->pairs_used;
    uint32_t events = 0;

    if (used)
        events = (pair->rx_wanted ? EPOLLIN : 0u) | (pair->tx_blocked ? EPOLLOUT : 0u);
    if (!pair->watch || events == pair->watched)
        return;
    pair->watched = events;
    /* With nothing to wait for, not even to hear for ever that the interface is gone. */
    loop_watch_set(pair->watch, events ? events : EPOLLONESHOT);
}

/* Sending */

static struct virtqueue *tx_queue(struct net_pair *pair)
{
    return &pair->net->vdev.queues[2 * pair->index + 1];
}

/* One request. False: the host is full, and it is in the ring again. */
static bool send_one(struct net_pair *pair, const struct virtq_chain *chain, uint64_t now_ns)
{
    struct virtio_net *net = pair->net;
    int64_t n = -EINVAL;

    if (net->unplugged)
        n = -EIO;
    else if (!chain->in && chain->out_bytes > HEADER && chain->out_bytes <= NETDEV_MAX_FRAME)
        n = netdev_send(net->netdev, pair->index, chain->iov, chain->out);
    if (n == -EAGAIN) {
        virtqueue_unpop(tx_queue(pair), chain);
        counter_add(&net->stats.tx_waits, 1);
        return false;
    }
    if (n < 0) {
        counter_add(&net->stats.tx_dropped, 1);
    } else {
        counter_add(&net->stats.tx_frames, 1);
        counter_add(&net->stats.tx_bytes, chain->out_bytes - HEADER);
        virtio_limit_take(&net->tx_limit, 1, chain->out_bytes - HEADER, now_ns);
    }
    virtqueue_fill_head(tx_queue(pair), chain->head, 0);
    return true;
}

static void transmit(struct net_pair *pair)
{
    struct virtio_net *net = pair->net;
    struct virtqueue *vq = tx_queue(pair);
    struct virtq_chain chain = {.iov = pair->tx_iov, .room = VIRTQ_MAX_CHAIN};
    unsigned sent = 0, queue = 2 * pair->index + 1;
    uint64_t now_ns = virtio_limit_now(&net->tx_limit);
    bool was_blocked = pair->tx_blocked;
    int r = 0;

    pair->tx_blocked = netdev_flush(net->netdev, pair->index) == -EAGAIN;
    virtqueue_disable_kicks(vq);
    while (sent < TX_BURST && !pair->tx_blocked) {
        if (!virtio_limit_admits(&net->tx_limit, queue, now_ns))
            break; /* and it is rung then */
        r = virtqueue_pop(vq, &chain);
        if (r == 0 && virtqueue_enable_kicks(vq)) {
            virtqueue_disable_kicks(vq);
            continue;
        }
        if (r <= 0)
            break;
        pair->tx_blocked = !send_one(pair, &chain, now_ns);
        sent += !pair->tx_blocked;
    }
    /* Before the guest may have its buffers again. */
    if (netdev_flush(net->netdev, pair->index) == -EAGAIN)
        pair->tx_blocked = true;
    if (sent) {
        virtqueue_publish(vq);
        virtio_notify(&net->vdev, queue);
        /* Who waited for the CPU would let passt wait for the guest's every answer. */
        if (!netdev_relays(net->netdev))
            virtio_pace(&net->vdev, sent);
    }
    if (r < 0)
        virtio_broken(&net->vdev, "the driver broke the transmit ring");
    else if (sent == TX_BURST && !pair->tx_blocked)
        virtio_ring(&net->vdev, queue); /* there may be more */
    if (pair->tx_blocked != was_blocked)
        net_pair_watch(pair);
}

/* Events */

static void run_pair(struct net_pair *pair)
{
    if (!net_vhost_serves(pair, VHOST_RX))
        net_rx_run(pair);
    if (net_runs(pair->net) && !pair->tx_blocked && !net_vhost_serves(pair, VHOST_TX))
        transmit(pair);
}

static void netdev_ready(void *opaque, uint32_t events)
{
    struct net_pair *pair = opaque;

    if (!net_runs(pair->net) || pair->index >= pair->net->pairs_used) {
        net_pair_watch(pair);
        return;
    }
    if (events & (EPOLLERR | EPOLLHUP)) {
        /*
         * The interface is gone, for good: receiving shows it, and what the guest sends is dropped
         * and counted. Or the pair was not in use when this was said, and goes on.
         */
        pair->tx_blocked = false;
        run_pair(pair);
        net_pair_watch(pair);
        return;
    }
    if (events & EPOLLOUT && pair->tx_blocked)
        transmit(pair);
    if (events & EPOLLIN && pair->rx_wanted && net_runs(pair->net))
        net_rx_run(pair);
}

void net_run_pairs(struct virtio_net *net)
{
    net_vhost_settle(net);
    for (unsigned i = 0; i < net->max_pairs && net_runs(net); i++) {
        struct net_pair *pair = &net->pairs[i];

        if (i < net->pairs_used) {
            run_pair(pair);
        } else {
            net_rx_return(pair);
            net_rx_forget(pair);
            net_pair_watch(pair);
        }
    }
}

static void virtio_net_kick(struct virtio_device *vdev, unsigned queue)
{
    struct virtio_net *net = self(vdev);
    struct net_pair *pair = &net->pairs[queue / 2];

    if (queue == net_ctrl_queue(net)) {
        net_ctrl_run(net);
        return;
    }
    if (queue / 2 >= net->pairs_used)
        return; /* a pair that is not in use is left alone */
    net_vhost_settle(net);
    if (net_vhost_serves(pair, queue % 2) || !net_runs(net))
        return;
    if (queue % 2 == 0)
        net_rx_run(pair);
    else if (!pair->tx_blocked)
        transmit(pair);
}

void net_update_link(struct virtio_net *net)
{
    bool link = !net->unplugged && netdev_link_up(net->netdev);

    if (link == net->link)
        return;
    net->link = link;
    net_vhost_settle(net); /* what comes to no wire is dropped here */
    virtio_config_changed(&net->vdev);
}

static void link_news(void *opaque, uint32_t events)
{
    struct virtio_net *net = opaque;

    (void)events;
    if (net->vdev.paused) {
        loop_watch_set(net->link_watch, EPOLLONESHOT); /* resume looks */
        return;
    }
    netdev_link_drain(net->netdev);
    net_update_link(net);
}

void virtio_net_set_link(struct device *dev, bool up)
{
    struct virtio_net *net = from_device(dev);

    pthread_mutex_lock(&dev->lock);
    net->unplugged = !up;
    if (!net->vdev.paused)
        net_update_link(net);
    pthread_mutex_unlock(&dev->lock);
}

/* By its place: for a driver without MQ the control queue of several pairs is the one after tx0. */
static void virtio_net_queue_name(const struct virtio_device *vdev, unsigned queue, char *buf,
                                  size_t len)
{
    if (queue == vdev->queue_count - 1)
        snprintf(buf, len, "ctrl");
    else
        snprintf(buf, len, "%s%u", queue % 2 ? "tx" : "rx", queue / 2);
}

/* Life */

static uint64_t virtio_net_config_read(struct virtio_device *vdev, uint64_t offset, unsigned size)
{
    const struct virtio_net *net = self(vdev);
    struct virtio_net_config config = {
        .status = (uint16_t)((net->link ? VIRTIO_NET_S_LINK_UP : 0) |
                             (net->announce ? VIRTIO_NET_S_ANNOUNCE : 0)),
        .max_virtqueue_pairs = net->max_pairs,
        .mtu = net->mtu,
    };
    uint64_t value = 0;

    memcpy(config.mac, net->mac, sizeof(config.mac));
    memcpy(&value, (const uint8_t *)&config + offset, size);
    return value;
}

/* Also of a device that was loaded, which has its pairs and offloads already. */
static void virtio_net_start(struct virtio_device *vdev)
{
    struct virtio_net *net = self(vdev);
    bool large;

    if (!net->loading) {
        net_ctrl_reset(net);
        net->guest_offloads = vdev->negotiated & NET_GUEST_OFFLOADS;
    }
    (void)net_ctrl_apply(net); /* logged there */
    large = vdev->negotiated & NET_GUEST_OFFLOADS & ~(UINT64_C(1) << VIRTIO_NET_F_GUEST_CSUM);
    net->mergeable = virtio_has(vdev, VIRTIO_NET_F_MRG_RXBUF);
    net->wanted = large ? NETDEV_MAX_FRAME : HEADER + NET_ETHERNET_BYTES + netdev_mtu(net->netdev);
    net_vhost_settle(net);
    /* The transport rings each doorbell now, and so begins what is to be done. */
}

static void forget_limits(struct virtio_net *net)
{
    virtio_limit_forget(&net->rx_limit);
    virtio_limit_forget(&net->tx_limit);
}

static void virtio_net_stop(struct virtio_device *vdev)
{
    struct virtio_net *net = self(vdev);

    net_vhost_settle(net);
    forget_limits(net);
    for (unsigned i = 0; i < net->max_pairs; i++) {
        struct net_pair *pair = &net->pairs[i];

        net_rx_forget(pair); /* the queue forgets its buffers as well */
        pair->rx_wanted = pair->tx_blocked = false;
        net_pair_watch(pair);
    }
    if (net->loading)
        return;
    net_ctrl_reset(net);
    (void)net_ctrl_apply(net);
}

static void virtio_net_broken(struct virtio_device *vdev)
{
    net_vhost_settle(self(vdev));
}

static void virtio_net_interrupts_moved(struct virtio_device *vdev)
{
    net_vhost_interrupts_moved(self(vdev));
}

static void virtio_net_reset(struct device *dev)
{
    struct virtio_net *net = from_device(dev);

    virtio_reset(dev);
    net_ctrl_reset(net);
    net->link = !net->unplugged && netdev_link_up(net->netdev); /* the cable is the operator's */
}

static void virtio_net_pause(struct device *dev)
{
    struct virtio_net *net = from_device(dev);

    virtio_pause(dev);
    net_vhost_settle(net); /* no ring is the kernel's, and its log is complete */
    forget_limits(net);
    for (unsigned i = 0; i < net->max_pairs; i++) {
        net_rx_return(&net->pairs[i]); /* a frame that is pending stays, in our own memory */
        net->pairs[i].tx_blocked = false;
        net_pair_watch(&net->pairs[i]);
    }
}

static void virtio_net_resume(struct device *dev)
{
    struct virtio_net *net = from_device(dev);

    virtio_resume(dev); /* which rings each doorbell */
    if (net->link_watch)
        loop_watch_set(net->link_watch, EPOLLIN);
    net_update_link(net);
    net_vhost_settle(net);
}

static void destroy_watches(void *opaque)
{
    struct virtio_net *net = opaque;

    for (unsigned i = 0; i < net->max_pairs; i++) {
        loop_watch_destroy(net->pairs[i].watch);
        net->pairs[i].watch = NULL;
    }
    net_vhost_destroy(net);
    loop_watch_destroy(net->link_watch);
    net->link_watch = NULL;
    virtio_limit_destroy(&net->rx_limit);
    virtio_limit_destroy(&net->tx_limit);
}

static void call_on_loop(struct virtio_net *net, loop_fn *fn, void *opaque)
{
    if (net->thread)
        iothread_call(net->thread, fn, opaque);
    else
        fn(opaque);
}

static void free_net(struct virtio_net *net)
{
    net_vhost_fini(net);
    for (unsigned i = 0; net->pairs && i < net->max_pairs; i++)
        free(net->pairs[i].spill);
    free(net->pairs);
    free(net);
}

static void virtio_net_destroy(struct device *dev)
{
    struct virtio_net *net = from_device(dev);

    call_on_loop(net, destroy_watches, net);
    virtio_fini(&net->vdev);
    free_net(net);
}

static int virtio_net_post_load(void *obj, struct error *err)
{
    struct virtio_net *net = obj;
    int r;

    if (net->pairs_used < 1 || net->pairs_used > net->max_pairs)
        return error_set(err, EPROTO, "pairs_used: %u of %u", net->pairs_used, net->max_pairs);
    if (net->uni_count + net->multi_count > NET_TABLE)
        return error_set(err, EPROTO, "%u and %u addresses in a table of %u", net->uni_count,
                         net->multi_count, NET_TABLE);
    if (net->guest_offloads & ~(net->vdev.negotiated & NET_GUEST_OFFLOADS))
        return error_set(err, EPROTO, "guest_offloads: 0x%llx were not negotiated",
                         (unsigned long long)net->guest_offloads);
    net->loading = true;
    r = virtio_post_load(&net->vdev, err);
    net->loading = false;
    return r;
}

static const struct state_field virtio_net_fields[] = {
    VIRTIO_STATE_FIELDS(struct virtio_net, vdev),
    STATE(struct virtio_net, max_pairs, .match = true),
    STATE(struct virtio_net, mtu, .match = true),
    STATE(struct virtio_net, pairs_used),
    STATE_ARRAY(struct virtio_net, mac),
    STATE(struct virtio_net, link),
    STATE(struct virtio_net, unplugged),
    STATE(struct virtio_net, announce),
    STATE(struct virtio_net, promisc),
    STATE(struct virtio_net, allmulti),
    STATE(struct virtio_net, uni_overflow),
    STATE(struct virtio_net, multi_overflow),
    STATE(struct virtio_net, uni_count, .max = NET_TABLE),
    STATE(struct virtio_net, multi_count, .max = NET_TABLE),
    STATE_ARRAY(struct virtio_net, table),
    STATE_ARRAY(struct virtio_net, vlans),
    STATE(struct virtio_net, guest_offloads),
    STATE_END,
};

static const struct state_desc virtio_net_state = {
    .name = "virtio-net",
    .version = 1,
    .fields = virtio_net_fields,
    .post_load = virtio_net_post_load,
};

static const struct device_ops virtio_net_device_ops = {
    .type = "virtio-net",
    .read = virtio_read,
    .write = virtio_write,
    .reset = virtio_net_reset,
    .pause = virtio_net_pause,
    .resume = virtio_net_resume,
    .destroy = virtio_net_destroy,
    .state = &virtio_net_state,
};

static const struct virtio_ops virtio_net_ops = {
    .type = "virtio-net",
    .device_id = VIRTIO_ID_NET,
    .class_code = CLASS_ETHERNET,
    .config_read = virtio_net_config_read,
    .start = virtio_net_start,
    .stop = virtio_net_stop,
    .kick = virtio_net_kick,
    .broken = virtio_net_broken,
    .interrupts_moved = virtio_net_interrupts_moved,
    .queue_name = virtio_net_queue_name,
};

struct watches {
    struct virtio_net *net;
    struct error *err;
    int result;
};

static void create_watches(void *opaque)
{
    struct watches *w = opaque;
    struct virtio_net *net = w->net;
    pthread_mutex_t *lock = &net->vdev.pci.dev.lock;

    for (unsigned i = 0; i < net->max_pairs && w->result == 0; i++)
        w->result = loop_watch_create(net->loop, netdev_fd(net->netdev, i), EPOLLONESHOT, lock,
                                      netdev_ready, &net->pairs[i], &net->pairs[i].watch, w->err);
    if (w->result == 0)
        w->result = loop_watch_create(net->loop, netdev_link_fd(net->netdev), EPOLLIN, lock,
                                      link_news, net, &net->link_watch, w->err);
    if (w->result == 0)
        w->result = net_vhost_create(net, w->err);
    if (w->result == 0)
        w->result = virtio_limit_create(&net->rx_limit, &net->vdev, w->err);
    if (w->result == 0)
        w->result = virtio_limit_create(&net->tx_limit, &net->vdev, w->err);
}

static struct virtio_net *allocate(const struct virtio_net_params *params)
{
    struct virtio_net *net = calloc(1, sizeof(*net));

    if (!net)
        return NULL;
    net->netdev = params->netdev;
    net->thread = params->thread;
    net->loop = params->thread ? iothread_loop(params->thread) : params->loop;
    net->max_pairs = (uint16_t)params->queues;
    net->mtu = params->mtu;
    memcpy(net->own_mac, params->mac, sizeof(net->own_mac));
    net_ctrl_reset(net);
    net->pairs = calloc(params->queues, sizeof(net->pairs[0]));
    if (net->pairs)
        net_vhost_init(net, params->vhosts);
    for (unsigned i = 0; net->pairs && i < params->queues; i++) {
        net->pairs[i].net = net;
        net->pairs[i].index = i;
        net->pairs[i].spill = malloc(NET_SPILL_BYTES);
        if (!net->pairs[i].spill)
            goto fail;
    }
    if (net->pairs)
        return net;

fail:
    free_net(net);
    return NULL;
}

static uint64_t features(const struct virtio_net_params *params)
{
    uint64_t features = FEATURES;

    if (params->finished)
        features &= ~UNFINISHED;
    else if (!netdev_offloads(params->netdev))
        features &= ~SEGMENTS;
    if (params->mtu)
        features |= UINT64_C(1) << VIRTIO_NET_F_MTU;
    if (params->queues > 1)
        features |= UINT64_C(1) << VIRTIO_NET_F_MQ;
    return features;
}

int virtio_net_create(struct platform *platform, struct device *host,
                      const struct virtio_net_params *params, struct device **ret_dev,
                      struct error *err)
{
    const struct virtio_params virtio = {
        .platform = platform,
        .host = host,
        .loop = params->loop,
        .thread = params->thread,
        .id = params->id,
        .features = features(params),
        .queues = 2 * params->queues + 1,
        .queue_size = NET_QUEUE_SIZE,
        .config_size = offsetof(struct virtio_net_config, mtu) + sizeof(uint16_t),
    };
    struct watches watches = {.err = err};
    struct virtio_net *net;
    int r;

    assert(params->queues >= 1 && params->queues <= NETDEV_MAX_QUEUES);
    net = allocate(params);
    if (!net)
        return error_set(err, ENOMEM, "%s: out of memory", params->id);
    r = virtio_init(&net->vdev, &virtio_net_device_ops, &virtio_net_ops, &virtio, err);
    if (r < 0)
        goto fail;
    net->link = netdev_link_up(net->netdev);
    watches.net = net;
    call_on_loop(net, create_watches, &watches);
    r = watches.result;
    if (r < 0)
        goto fail;
    virtio_limit_set(&net->rx_limit, &params->rx_rates, true);
    virtio_limit_set(&net->tx_limit, &params->tx_rates, true);
    *ret_dev = &net->vdev.pci.dev;
    return 0;

fail:
    virtio_net_destroy(&net->vdev.pci.dev);
    return r;
}
