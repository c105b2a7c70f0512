/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICES_VIRTIO_NET_H
#define DEVICES_VIRTIO_NET_H

/* What virtio-net's files share. Everything with the device's lock held. */

#include <linux/virtio_net.h>

#include "virtio_limit.h"
#include "vmrun/vhost.h"

#define NET_QUEUE_SIZE 256
#define NET_RX_IOVS 1023 /* and one more for what the guest's buffers do not hold: IOV_MAX */
#define NET_TABLE 64     /* MAC addresses in the filter */
#define NET_VLANS 4096
#define NET_ETHERNET_BYTES 18                  /* with a VLAN tag: what filters look at */
#define NET_SPILL_BYTES (NETDEV_MAX_FRAME + 1) /* one more shows that a frame was cut */

/* Features that change what the host may hand to the guest, in CTRL_GUEST_OFFLOADS' own bits. */
#define NET_GUEST_OFFLOADS \
    (UINT64_C(1) << VIRTIO_NET_F_GUEST_CSUM | UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO4 | \
     UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO6 | UINT64_C(1) << VIRTIO_NET_F_GUEST_ECN)

/* A receive buffer that was popped and is not used yet. */
struct net_buffer {
    uint16_t head, iovs;
    uint32_t bytes;
};

/* A ring that the host's kernel may serve. */
struct net_kernel_ring {
    struct net_pair *pair;
    unsigned queue;
    bool on;
    int told_fd;              /* on: what the kernel interrupts by, */
    int call_fd;              /* or this one of our own, when it cannot by itself */
    struct loop_watch *watch; /* of call_fd */
};

struct net_pair {
    struct virtio_net *net;
    unsigned index;
    struct loop_watch *watch; /* of the netdev's descriptor */
    uint32_t watched;         /* events */
    bool rx_wanted;           /* frames; else the guest must kick first */
    bool tx_blocked;          /* the host is full; else the guest must kick first */

    /* Receive buffers at hand, the oldest first, and their iovecs, in order. */
    struct net_buffer held[NET_QUEUE_SIZE];
    unsigned held_count;
    unsigned iov_first, iov_end;
    struct iovec rx_iov[NET_RX_IOVS + 1];
    uint64_t capacity; /* bytes of all that is held */

    /* Where frames go on when the buffers end; a frame that waits for more buffers is here. */
    uint8_t *spill; /* NET_SPILL_BYTES */
    uint32_t pending;

    struct iovec tx_iov[VIRTQ_MAX_CHAIN];

    struct vhost *vhost; /* or NULL, and the rest is not used */
    struct net_kernel_ring rings[VHOST_RINGS];
    int error_fd;
    struct loop_watch *error_watch;
};

struct virtio_net {
    struct virtio_device vdev;
    struct netdev *netdev;
    struct iothread *thread;
    struct loop *loop;
    struct net_pair *pairs;
    struct vhost *const *vhost; /* of each pair, or NULL */
    struct loop_watch *link_watch;
    uint8_t own_mac[6]; /* after a reset */
    struct virtio_net_stats stats;
    struct virtio_limit rx_limit,
        tx_limit; /* what waits for one waits neither for netdev nor guest */
    bool loading; /* what the guest can notice comes from a stream */

    /* Settled at start. */
    bool mergeable;
    uint64_t wanted; /* bytes to have at hand before a frame is received */

    /* What the guest can notice. */
    uint16_t max_pairs, mtu;
    uint16_t pairs_used;
    uint8_t mac[6];
    bool link, unplugged, announce; /* link: as the guest was told */
    bool promisc, allmulti, uni_overflow, multi_overflow;
    uint8_t uni_count, multi_count;
    uint8_t table[NET_TABLE * 6]; /* unicast first; zeros beyond the counts */
    uint64_t vlans[NET_VLANS / 64];
    uint64_t guest_offloads;
};

/* virtio_net_ctrl.c */

unsigned net_ctrl_queue(const struct virtio_net *net); /* where the driver finds it */
void net_ctrl_run(struct virtio_net *net);
void net_ctrl_reset(struct virtio_net *net); /* filters and offloads to power-on */
/* ethernet: how the frame begins, zeros where it is shorter. */
bool net_ctrl_accepts(const struct virtio_net *net, const uint8_t ethernet[NET_ETHERNET_BYTES]);
/* Have the netdev do as pairs_used and guest_offloads say. False: it does not. */
bool net_ctrl_apply(struct virtio_net *net);

/* virtio_net_rx.c: receive what there is, and settle what the pair waits for next. On the loop. */
void net_rx_run(struct net_pair *pair);
void net_rx_return(struct net_pair *pair); /* buffers to the ring, as if they had not been popped */
void net_rx_forget(struct net_pair *pair); /* at reset: the ring is gone */

/*
 * virtio_net_vhost.c. Without vhost nothing happens.
 *
 * settle: the kernel serves what it is to serve now, and nothing else; after anything that may have
 * changed that. let_go: the pairs from this one on are not to be its any more.
 */
void net_vhost_settle(struct virtio_net *net);
void net_vhost_let_go(struct virtio_net *net, unsigned pairs);
bool net_vhost_serves(const struct net_pair *pair, unsigned ring); /* so it is not ours now */
void net_vhost_interrupts_moved(struct virtio_net *net);
int net_vhost_log(struct virtio_net *net, bool on, struct error *err); /* as of vhost_set_log() */
void net_vhost_init(struct virtio_net *net, struct vhost *const *vhosts); /* before anything */
int net_vhost_create(struct virtio_net *net, struct error *err); /* on the loop: the watches */
void net_vhost_destroy(struct virtio_net *net);
void net_vhost_fini(struct virtio_net *net); /* last, when nothing is served */

/* virtio_net.c */
bool net_runs(const struct virtio_net *net);
void net_pair_watch(struct net_pair *pair);   /* hear of what it waits for, and of nothing else */
void net_run_pairs(struct virtio_net *net);   /* other pairs are in use now. On the loop. */
void net_update_link(struct virtio_net *net); /* tell the guest, and follow, if it has changed */

#endif
