/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_net_rx: frames from the netdev straight into the guest's buffers. VIRTIO 1.2, "Network
 * Device", "Processing of Incoming Packets".
 *
 * The one thing to know: how long a frame is shows only when it has been received. So buffers
 * for the longest one are popped beforehand (`held`), and behind them stands the `spill`: a
 * frame that runs over is gathered there and waits for more buffers (`pending`). What is held
 * goes back to the ring at pause, so nothing is in flight in a saved state; a pending frame is
 * ours, and is lost with the machine that stays behind, as one on the wire is.
 */
#include "virtio_net.h"

#include <errno.h>
#include <string.h>

#define HEADER NETDEV_HEADER_BYTES
#define RX_BURST 64 /* frames in one go, before the others on this loop have theirs */

static struct virtqueue *rx_queue(struct net_pair *pair)
{
    return &pair->net->vdev.queues[(size_t)2 * pair->index];
}

static void drop_held(struct net_pair *pair)
{
    pair->held_count = 0;
    pair->iov_first = pair->iov_end = 0;
    pair->capacity = 0;
}

void net_rx_forget(struct net_pair *pair)
{
    drop_held(pair);
    pair->pending = 0;
}

void net_rx_return(struct net_pair *pair)
{
    struct virtqueue *vq = rx_queue(pair);

    for (unsigned i = pair->held_count; i-- > 0;) {
        const struct virtq_chain chain = {.head = pair->held[i].head};

        virtqueue_unpop(vq, &chain);
    }
    drop_held(pair);
}

/* Room for a chain as long as the queue behind what is held. False: there is none. */
static bool make_room(struct net_pair *pair)
{
    unsigned count = pair->iov_end - pair->iov_first;

    if (NET_RX_IOVS - pair->iov_end >= NET_QUEUE_SIZE)
        return true;
    if (NET_RX_IOVS - count < NET_QUEUE_SIZE)
        return false;
    memmove(pair->rx_iov, pair->rx_iov + pair->iov_first, count * sizeof(pair->rx_iov[0]));
    pair->iov_first = 0;
    pair->iov_end = count;
    return true;
}

/* Pop one buffer more. Returns 1, 0 when there is none (or no room), or -EPROTO. */
static int hold_one(struct net_pair *pair)
{
    struct virtq_chain chain;
    int r;

    if (pair->held_count == NET_QUEUE_SIZE || !make_room(pair))
        return 0;
    chain = (struct virtq_chain){.iov = pair->rx_iov + pair->iov_end,
                                 .room = NET_RX_IOVS - pair->iov_end};
    r = virtqueue_pop(rx_queue(pair), &chain);
    if (r <= 0)
        return r;
    if (chain.out || chain.in_bytes < HEADER)
        return -EPROTO;
    pair->held[pair->held_count++] = (struct net_buffer){
        .head = chain.head, .iovs = (uint16_t)chain.in, .bytes = (uint32_t)chain.in_bytes};
    pair->iov_end += chain.in;
    pair->capacity += chain.in_bytes;
    return 1;
}

/* Without MRG_RXBUF a frame takes one buffer, whatever its size. */
static int hold(struct net_pair *pair, uint64_t wanted)
{
    int r = 1;

    if (!pair->net->mergeable)
        return pair->held_count ? 0 : hold_one(pair);
    while (pair->capacity < wanted && r > 0)
        r = hold_one(pair);
    return r;
}

/* The oldest buffer is used, by so many bytes. */
static void use_first(struct net_pair *pair, uint32_t bytes)
{
    struct virtqueue *vq = rx_queue(pair);
    const struct net_buffer *first = &pair->held[0];

    virtqueue_mark_written(vq, pair->rx_iov + pair->iov_first, first->iovs, bytes);
    virtqueue_fill_head(vq, first->head, bytes);
    pair->iov_first += first->iovs;
    pair->capacity -= first->bytes;
    pair->held_count--;
    memmove(pair->held, pair->held + 1, pair->held_count * sizeof(pair->held[0]));
}

/* A frame of so many bytes, header included, lies in the buffers: give them to the driver. */
static void deliver(struct net_pair *pair, uint64_t bytes)
{
    static const uint8_t no_flags = 0;
    struct virtio_net *net = pair->net;
    uint16_t buffers = 0;

    for (uint64_t at = 0; at < bytes; buffers++)
        at += pair->held[buffers].bytes;
    iov_from_buf(pair->rx_iov + pair->iov_first, pair->iov_end - pair->iov_first,
                 offsetof(struct virtio_net_hdr_v1, num_buffers), &buffers, sizeof(buffers));
    /* The host says also of frames it need not have checked that they are good. */
    if (!(net->guest_offloads >> VIRTIO_NET_F_GUEST_CSUM & 1))
        iov_from_buf(pair->rx_iov + pair->iov_first, pair->iov_end - pair->iov_first,
                     offsetof(struct virtio_net_hdr_v1, flags), &no_flags, sizeof(no_flags));
    counter_add(&net->stats.rx_frames, 1);
    counter_add(&net->stats.rx_bytes, bytes - HEADER);
    while (bytes) {
        uint64_t part = bytes < pair->held[0].bytes ? bytes : pair->held[0].bytes;

        use_first(pair, (uint32_t)part);
        bytes -= part;
    }
    /* All at once: a driver that sees the first buffer expects the others. */
    virtqueue_publish(rx_queue(pair));
}

/* The frame that waits: 1 when it is gone, 0 when it needs buffers that are not there. */
static int deliver_pending(struct net_pair *pair)
{
    if (pair->pending > pair->capacity) {
        bool never = pair->held_count == rx_queue(pair)->size || !make_room(pair);

        if (!never)
            return 0;
        counter_add(&pair->net->stats.rx_dropped, 1);
        pair->pending = 0;
        return 1;
    }
    iov_from_buf(pair->rx_iov + pair->iov_first, pair->iov_end - pair->iov_first, 0, pair->spill,
                 pair->pending);
    deliver(pair, pair->pending);
    pair->pending = 0;
    return 1;
}

/* The buffers were too short: gather the frame where it is whole. */
static void keep_pending(struct net_pair *pair, uint64_t bytes)
{
    uint64_t over = bytes - pair->capacity;

    if (!pair->net->mergeable || bytes > NETDEV_MAX_FRAME) {
        counter_add(&pair->net->stats.rx_dropped, 1);
        return;
    }
    memmove(pair->spill + pair->capacity, pair->spill, over);
    iov_to_buf(pair->rx_iov + pair->iov_first, pair->iov_end - pair->iov_first, 0, pair->spill,
               pair->capacity);
    pair->pending = (uint32_t)bytes;
}

/* Whether the frame just received passes the filters. It may run on into the spill. */
static bool accepts(struct net_pair *pair)
{
    uint8_t ethernet[NET_ETHERNET_BYTES] = {0};

    if (pair->net->promisc && !pair->net->unplugged)
        return true;
    iov_to_buf(pair->rx_iov + pair->iov_first, pair->iov_end - pair->iov_first + 1, HEADER,
               ethernet, sizeof(ethernet));
    return net_ctrl_accepts(pair->net, ethernet);
}

/* One frame from the netdev. 1: go on; 0: it has none; -errno: it is no more. */
static int receive_one(struct net_pair *pair, uint64_t now_ns)
{
    struct virtio_net *net = pair->net;
    unsigned count = pair->iov_end - pair->iov_first;
    const struct iovec *iov = pair->rx_iov + pair->iov_first;
    int64_t n;

    pair->rx_iov[pair->iov_end] = (struct iovec){pair->spill, NET_SPILL_BYTES};
    n = netdev_receive(net->netdev, pair->index, iov, count + 1);
    if (n <= 0)
        return n == -EAGAIN ? 0 : -EIO;

    uint64_t bytes = (uint64_t)n, written = bytes < pair->capacity ? bytes : pair->capacity;
    bool accepted = bytes > HEADER && accepts(pair);

    if (accepted)
        virtio_limit_take(&net->rx_limit, 1, bytes - HEADER, now_ns);
    if (accepted && bytes <= pair->capacity) {
        deliver(pair, bytes);
        return 1;
    }
    /* The guest's memory has changed, though it gets no frame there. */
    virtqueue_mark_written(rx_queue(pair), iov, count, written);
    if (accepted)
        keep_pending(pair, bytes);
    else
        counter_add(&net->stats.rx_filtered, 1);
    return 1;
}

/* Wait for the guest to give buffers. False: it has done so already. */
static bool starve(struct net_pair *pair)
{
    pair->rx_wanted = virtqueue_enable_kicks(rx_queue(pair));
    if (pair->rx_wanted)
        virtqueue_disable_kicks(rx_queue(pair));
    return !pair->rx_wanted;
}

void net_rx_run(struct net_pair *pair)
{
    struct virtio_net *net = pair->net;
    uint64_t now_ns = virtio_limit_now(&net->rx_limit);
    int r = 1;

    pair->rx_wanted = true;
    virtqueue_disable_kicks(rx_queue(pair));
    for (unsigned i = 0; i < RX_BURST && r > 0; i++) {
        if (hold(pair, pair->pending ? pair->pending : net->wanted) < 0) {
            virtio_broken(&net->vdev, "the driver broke the receive ring");
            return;
        }
        if (pair->pending) {
            r = deliver_pending(pair);
        } else if (!virtio_limit_admits(&net->rx_limit, 2 * pair->index, now_ns)) {
            pair->rx_wanted = false; /* the wire may fill up; it is rung when it may go on */
            break;
        } else if (pair->held_count) {
            r = receive_one(pair, now_ns);
        } else {
            r = 0;
        }
        if (r == 0 && (pair->pending || !pair->held_count) && !starve(pair))
            r = 1;
    }
    if (r < 0)
        pair->rx_wanted = false; /* until a reset */
    virtio_notify(&net->vdev, 2 * pair->index);
    if (r > 0 && (pair->pending || netdev_more(net->netdev, pair->index)))
        virtio_ring(&net->vdev, 2 * pair->index); /* no frame from outside would wake us for it */
    net_pair_watch(pair);
}
