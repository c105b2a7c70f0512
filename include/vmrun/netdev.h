/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_NETDEV_H
#define VMRUN_NETDEV_H

/*
 * The host's side of a network card, one file descriptor a queue pair: a tap interface, or a
 * `passt` process, which needs no privilege. A virtio header stands before every frame; only a
 * tap has a use for it. A card does not know which of the two it has.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmrun/error.h"

struct netdev;

#define NETDEV_MAX_QUEUES 16   /* pairs */
#define NETDEV_HEADER_BYTES 12 /* struct virtio_net_hdr_v1, before every frame */
/* The longest frame there is, header included: 64 KiB of IP, Ethernet with one VLAN tag. */
#define NETDEV_MAX_FRAME (NETDEV_HEADER_BYTES + 18 + 65536)

struct tap_params {
    const char *ifname; /* made beforehand (for a user by `ip tuntap add ... user U`), or by us */
    const char *bridge; /* attach to it, or NULL */
    unsigned queues;    /* pairs: 1 to NETDEV_MAX_QUEUES; the first is in use, see set_queues */
    unsigned mtu;       /* give it this one; 0: leave it */
};

/*
 * Attach to the interface, or make it; set MTU, attach to the bridge and bring it up where that
 * is not so already: what is so needs no privilege. The message says the command that cures.
 *
 * Errors: -EPERM  no such tap and we may not make one, it is another user's, or it needs a
 *                 change that we may not make
 *         -EBUSY  another process has it, or it is attached to another bridge
 *         -ENODEV no /dev/net/tun, or no such bridge
 *         -EINVAL the name is no interface's name, no tap's, or of a tap without queues
 *         -ENOMEM, -EMFILE, -ENFILE
 */
int tap_open(const struct tap_params *params, struct netdev **ret_netdev, struct error *err);
/* How many of so many pairs it can have: all where it is yet to be made, or was made for several.
 */
unsigned tap_queues(const char *ifname, unsigned wanted);

struct user_net_params {
    const char *id;       /* "net net0": for the log */
    const char *forwards; /* ports of the host, as forward.h reads them, blanks between; or NULL */
    unsigned mtu;         /* what the guest is told by DHCP and NDP, USER_NET_MAX_MTU at most */
};
#define USER_NET_MAX_MTU 65520 /* passt's longest frame, without Ethernet, in words of 8 bytes */
/*
 * What a card has that was given none. passt's segments are whole pages, and no wire would cut them
 * up; but of longer ones than seven pages only some fit into the socket to us, and eight streams at
 * once wait for the rest to come again.
 */
#define USER_NET_MTU (7 * 4096 + 40)

/*
 * Start passt and wait until it is ready. One that ends later is started again, after a rest that
 * grows, and the link is down meanwhile. It never outlives us, however we end.
 *
 * Errors: -ENOENT     passt is not installed
 *         -EADDRINUSE, -EACCES, -EADDRNOTAVAIL  a port of the host cannot be had
 *         -ECANCELED  it ended, with its own words
 *         -ETIMEDOUT  it says nothing
 *         -EINVAL     no forward
 *         -ENOMEM, -EMFILE, -ENFILE, -EAGAIN
 */
int user_net_open(const struct user_net_params *params, struct netdev **ret_netdev,
                  struct error *err);

/* Whether passt is installed and its ports can be had now. Errors: the first of the above. */
int user_net_check(const struct user_net_params *params, struct error *err);

/* A tap that we made goes with it, and so does passt. NULL is fine. */
void netdev_close(struct netdev *netdev);

int netdev_fd(const struct netdev *netdev, unsigned queue); /* for the loop; non-blocking */
/*
 * One frame with its 12-byte virtio_net_hdr_v1. Bytes, or -EAGAIN, or -errno. Queue's thread.
 * send: -EIO while the interface is down, -EINVAL for a header or frame that the host refuses. What
 * iov points to must stay until netdev_flush(): frames may leave together.
 * receive: what does not fit is cut off; -EBADFD when the interface is gone.
 */
int64_t netdev_send(struct netdev *netdev, unsigned queue, const struct iovec *iov, unsigned count);
int64_t netdev_receive(struct netdev *netdev, unsigned queue, const struct iovec *iov,
                       unsigned count);
/*
 * What was sent leaves. -EAGAIN: some of it has to wait, and is the netdev's own now; call again
 * when the descriptor is writable.
 */
int netdev_flush(struct netdev *netdev, unsigned queue);
/* Whether a frame is at hand of which the descriptor says nothing any more. */
bool netdev_more(const struct netdev *netdev, unsigned queue);

/* Whether a process of this host carries the frames on, which needs a CPU as the guest does. */
bool netdev_relays(const struct netdev *netdev);
/*
 * What is sent may lack checksums always. Whether frames may be unfinished otherwise: segments of
 * 64 KiB, and what is received, as netdev_set_offload() says. If not, the checksums of what is
 * received are good.
 */
bool netdev_offloads(const struct netdev *netdev);
/* What the driver has negotiated: frames we hand it may then be unfinished in these ways. */
struct netdev_offload {
    bool csum, tso4, tso6, ecn, ufo; /* those behind csum count only with it, ecn with a tso */
};
int netdev_set_offload(struct netdev *netdev, const struct netdev_offload *offload,
                       struct error *err);
unsigned netdev_mtu(const struct netdev *netdev); /* of the interface now; 0: it is gone */
/*
 * The guest goes on here from elsewhere, when it runs next. Where its addresses may be others now,
 * the link is down for a moment then. Thread of the queues, or nobody else uses it.
 */
void netdev_moved(struct netdev *netdev);
bool netdev_link_up(const struct netdev *netdev); /* the interface is there and up */
/*
 * Readable when something has changed: then drain it, on the thread of the queues, and look at
 * netdev_link_up(). For the loop; non-blocking.
 */
int netdev_link_fd(const struct netdev *netdev);
void netdev_link_drain(struct netdev *netdev);
/* Use this many pairs (1 to what it was opened with); the others see nothing. */
int netdev_set_queues(struct netdev *netdev, unsigned queues, struct error *err);

#endif
