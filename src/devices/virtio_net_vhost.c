/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_net_vhost: the rings of a card that the host's kernel serves, see vhost.h.
 *
 * The one thing to know: the kernel serves a ring only while all is as it can do it, and
 * net_vhost_settle() follows whenever that changes. Else the ring is ours, as it is without vhost:
 * while the machine stands still, so that its state is the same; with the link down; and of a
 * driver that did not take what vhost does unasked.
 */
#include "virtio_net.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* It says in a header how many buffers there are, and what of a checksum is known, only rightly: */
#define NEEDED_FEATURES \
    (UINT64_C(1) << VIRTIO_NET_F_MRG_RXBUF | UINT64_C(1) << VIRTIO_NET_F_GUEST_CSUM)

static struct virtqueue *queue_of(const struct net_kernel_ring *ring)
{
    return &ring->pair->net->vdev.queues[ring->queue];
}

/* Whether the kernel is to serve the ring now. */
static bool wanted(const struct net_kernel_ring *ring)
{
    const struct virtio_net *net = ring->pair->net;

    return net_runs(net) && net->link && ring->pair->index < net->pairs_used &&
           (net->vdev.negotiated & NEEDED_FEATURES) == NEEDED_FEATURES &&
           net->guest_offloads >> VIRTIO_NET_F_GUEST_CSUM & 1 && queue_of(ring)->used_at;
}

/* Straight to the guest where that is possible, else to our loop. */
static int call_fd(const struct net_kernel_ring *ring)
{
    int fd = virtio_interrupt_fd(&ring->pair->net->vdev, ring->queue);

    return fd >= 0 ? fd : ring->call_fd;
}

static int start(struct net_kernel_ring *ring, struct error *err)
{
    struct net_pair *pair = ring->pair;
    struct virtio_net *net = pair->net;
    const struct virtqueue *vq = queue_of(ring);
    const struct vhost_ring params = {
        .size = vq->size,
        .next = vq->next_avail,
        .desc = vq->desc_at,
        .avail = vq->avail_at,
        .used = vq->used_at,
        .used_gpa = vq->used,
        .tap_fd = netdev_fd(net->netdev, pair->index),
        .kick_fd = net->vdev.kicks[ring->queue].fd,
        .call_fd = call_fd(ring),
        .error_fd = pair->error_fd,
    };
    int r = vhost_set_features(pair->vhost, net->vdev.negotiated, err);

    return r < 0 ? r : vhost_start(pair->vhost, ring->queue % 2, &params, err);
}

static void give(struct net_kernel_ring *ring)
{
    struct net_pair *pair = ring->pair;
    struct virtio_net *net = pair->net;
    struct error err;
    eventfd_t stale;

    if (ring->queue % 2 == VHOST_RX) {
        if (pair->pending) /* of the time when the ring was ours: lost, as on a wire */
            counter_add(&net->stats.rx_dropped, 1);
        net_rx_return(pair);
        net_rx_forget(pair);
        pair->rx_wanted = false;
    } else {
        pair->tx_blocked = false;
    }
    if (!pair->rings[VHOST_RX].on && !pair->rings[VHOST_TX].on)
        (void)eventfd_read(pair->error_fd, &stale); /* of a driver before */
    virtio_lend_doorbell(&net->vdev, ring->queue, true);
    if (start(ring, &err) == 0) {
        ring->on = true;
        counter_add(&net->stats.vhost_starts, 1);
        ring->told_fd = call_fd(ring);
        virtio_ring(&net->vdev, ring->queue); /* what is there already */
    } else {
        virtio_lend_doorbell(&net->vdev, ring->queue, false);
        log_warn_limited(&net->vdev.complaints, "%s: %s", net->vdev.pci.dev.id, err.msg);
        virtio_broken(&net->vdev, "the host's kernel does not take the ring");
    }
}

static void take_back(struct net_kernel_ring *ring)
{
    struct net_pair *pair = ring->pair;
    struct virtio_net *net = pair->net;
    struct virtqueue *vq = queue_of(ring);
    uint16_t next = vq->next_avail;
    struct error err;

    ring->on = false;
    counter_add(&net->stats.vhost_stops, 1);
    if (vhost_stop(pair->vhost, ring->queue % 2, &next, &err) < 0)
        log_warn_limited(&net->vdev.complaints, "%s: %s", net->vdev.pci.dev.id, err.msg);
    if (!net->loading) /* else the queue is another one by now */
        virtqueue_take_back(vq, next);
    virtio_lend_doorbell(&net->vdev, ring->queue, false); /* which rings if it ever did */
}

void net_vhost_settle(struct virtio_net *net)
{
    bool changed = false;

    if (!net->vhost)
        return;
    /* What is taken back may be attached to the tap no longer: before anything begins. */
    for (unsigned i = 0; i < VHOST_RINGS * net->max_pairs; i++) {
        struct net_kernel_ring *ring = &net->pairs[i / 2].rings[i % 2];

        if (ring->on && !wanted(ring)) {
            take_back(ring);
            changed = true;
        }
    }
    for (unsigned i = 0; i < VHOST_RINGS * net->max_pairs; i++) {
        struct net_kernel_ring *ring = &net->pairs[i / 2].rings[i % 2];

        if (!ring->on && wanted(ring)) {
            give(ring);
            changed = true;
        }
    }
    for (unsigned i = 0; changed && i < net->max_pairs; i++)
        net_pair_watch(&net->pairs[i]);
}

void net_vhost_let_go(struct virtio_net *net, unsigned pairs)
{
    for (unsigned i = VHOST_RINGS * pairs; net->vhost && i < VHOST_RINGS * net->max_pairs; i++)
        if (net->pairs[i / 2].rings[i % 2].on)
            take_back(&net->pairs[i / 2].rings[i % 2]);
}

bool net_vhost_serves(const struct net_pair *pair, unsigned ring)
{
    return pair->rings[ring].on;
}

void net_vhost_interrupts_moved(struct virtio_net *net)
{
    for (unsigned i = 0; net->vhost && i < VHOST_RINGS * net->max_pairs; i++) {
        struct net_pair *pair = &net->pairs[i / 2];
        struct net_kernel_ring *ring = &pair->rings[i % 2];
        struct error err;

        if (!ring->on || ring->told_fd == call_fd(ring))
            continue;
        ring->told_fd = call_fd(ring);
        if (vhost_set_call(pair->vhost, i % 2, ring->told_fd, &err) < 0)
            log_warn_limited(&net->vdev.complaints, "%s: %s", net->vdev.pci.dev.id, err.msg);
    }
}

int net_vhost_log(struct virtio_net *net, bool on, struct error *err)
{
    int r = 0;

    for (unsigned i = 0; net->vhost && r == 0 && i < net->max_pairs; i++)
        r = vhost_set_log(net->pairs[i].vhost, on, err);
    return r < 0 ? error_prefix(err, "%s", net->vdev.pci.dev.id) : 0;
}

/* Events */

/* It cannot interrupt by itself: the driver has no MSI-X, or has masked the vector. */
static void called(void *opaque, uint32_t events)
{
    struct net_kernel_ring *ring = opaque;

    (void)events;
    if (net_runs(ring->pair->net)) /* else whoever goes on asks the ring */
        virtio_interrupt(&ring->pair->net->vdev, ring->queue);
}

static void ring_is_bad(void *opaque, uint32_t events)
{
    struct net_pair *pair = opaque;
    eventfd_t count;

    (void)events;
    if (eventfd_read(pair->error_fd, &count) < 0)
        return;
    if (net_runs(pair->net))
        net_update_link(pair->net); /* it says the same of a tap that is gone */
    if (net_runs(pair->net) && (pair->rings[VHOST_RX].on || pair->rings[VHOST_TX].on))
        virtio_broken(&pair->net->vdev, "the driver broke a ring, says the host's kernel");
}

/* Building it */

static int create_eventfd(int *ret_fd, struct virtio_net *net, struct error *err)
{
    *ret_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return *ret_fd < 0 ? error_errno(err, errno, "%s: eventfd", net->vdev.pci.dev.id) : 0;
}

static int create_pair(struct net_pair *pair, struct error *err)
{
    struct virtio_net *net = pair->net;
    pthread_mutex_t *lock = &net->vdev.pci.dev.lock;
    int r = create_eventfd(&pair->error_fd, net, err);

    for (unsigned i = 0; r == 0 && i < VHOST_RINGS; i++) {
        struct net_kernel_ring *ring = &pair->rings[i];

        ring->pair = pair;
        ring->queue = 2 * pair->index + i;
        r = create_eventfd(&ring->call_fd, net, err);
        if (r == 0) /* as a doorbell: each write is an edge, and nobody reads the counter */
            r = loop_watch_create(net->loop, ring->call_fd, EPOLLIN | EPOLLET, lock, called, ring,
                                  &ring->watch, err);
    }
    return r < 0 ? r
                 : loop_watch_create(net->loop, pair->error_fd, EPOLLIN, lock, ring_is_bad, pair,
                                     &pair->error_watch, err);
}

void net_vhost_init(struct virtio_net *net, struct vhost *const *vhosts)
{
    net->vhost = vhosts;
    for (unsigned i = 0; i < net->max_pairs; i++) {
        struct net_pair *pair = &net->pairs[i];

        pair->vhost = vhosts ? vhosts[i] : NULL;
        pair->error_fd = pair->rings[VHOST_RX].call_fd = pair->rings[VHOST_TX].call_fd = -1;
    }
}

int net_vhost_create(struct virtio_net *net, struct error *err)
{
    int r = 0;

    for (unsigned i = 0; net->vhost && r == 0 && i < net->max_pairs; i++)
        r = create_pair(&net->pairs[i], err);
    if (net->vhost) /* of all queues but the driver's commands */
        net->vdev.uncounted = (UINT64_C(1) << VHOST_RINGS * net->max_pairs) - 1;
    return r;
}

void net_vhost_destroy(struct virtio_net *net)
{
    for (unsigned i = 0; i < VHOST_RINGS * net->max_pairs; i++) {
        struct net_kernel_ring *ring = &net->pairs[i / 2].rings[i % 2];

        loop_watch_destroy(ring->watch);
        ring->watch = NULL;
    }
    for (unsigned i = 0; i < net->max_pairs; i++) {
        loop_watch_destroy(net->pairs[i].error_watch);
        net->pairs[i].error_watch = NULL;
    }
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

void net_vhost_fini(struct virtio_net *net)
{
    for (unsigned i = 0; net->pairs && i < net->max_pairs; i++) {
        close_fd(net->pairs[i].error_fd);
        close_fd(net->pairs[i].rings[VHOST_RX].call_fd);
        close_fd(net->pairs[i].rings[VHOST_TX].call_fd);
    }
}
